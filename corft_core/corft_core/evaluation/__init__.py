"""Evaluation on paired scenes: rollouts in the cell, intervals, plots and the report."""
