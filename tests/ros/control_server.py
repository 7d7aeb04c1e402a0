"""A robot behind ros2_control's actions, for tests: follows trajectories exactly, answers as the controllers do.

`python -m ros.control_server CONTRACT`. Actions: arm_controller/follow_joint_trajectory, gripper_controller/gripper_cmd
(GripperCommand), parallel_controller/gripper_cmd (ParallelGripperCommand); publishes joint_states and
arm_controller/controller_state on the system's clock. Services driver/reject, driver/abort and driver/silent (SetBool)
make the arm's controller refuse goals, give up the running one, and fall silent as an inactive one.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import rclpy
from control_msgs.action import FollowJointTrajectory, GripperCommand, ParallelGripperCommand
from control_msgs.msg import JointTrajectoryControllerState
from rclpy.action import ActionServer, GoalResponse
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from corft.cell.controller import controller_node
from corft.cell.messages import controller_state_message
from corft_core.cell.controller import JointTrajectoryController, TrajectoryRejected
from corft_core.contract import Contract
from corft_core.data.messages import joint_path

PERIOD_S = 0.02


class Robot(Node):
    """See the module's docstring."""

    def __init__(self, contract: Contract) -> None:
        super().__init__("driver")
        self._contract = contract
        self._arm = JointTrajectoryController(contract.robot.joints, np.array(contract.robot.home_rad))
        self._finger = contract.gripper.open_position
        self._flags = dict.fromkeys(("reject", "abort", "silent"), False)
        self._goal: tuple[Future, Any] | None = None
        self._states = self.create_publisher(JointState, "joint_states", 10)
        self._controller_state = self.create_publisher(JointTrajectoryControllerState,
                                                       "arm_controller/controller_state", 10)
        ActionServer(self, FollowJointTrajectory, "arm_controller/follow_joint_trajectory", self._follow,
                     goal_callback=self._accept)
        ActionServer(self, GripperCommand, "gripper_controller/gripper_cmd", self._grip)
        ActionServer(self, ParallelGripperCommand, "parallel_controller/gripper_cmd", self._grip_parallel)
        for flag in self._flags:
            self.create_service(SetBool, f"driver/{flag}", self._setter(flag))
        self.create_timer(PERIOD_S, self._tick)

    def _setter(self, flag: str) -> Any:
        def set_flag(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
            self._flags[flag], response.success = request.data, True
            return response
        return set_flag

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9

    def _accept(self, goal: FollowJointTrajectory.Goal) -> GoalResponse:
        return GoalResponse.REJECT if self._flags["reject"] else GoalResponse.ACCEPT

    async def _follow(self, handle: Any) -> FollowJointTrajectory.Result:
        trajectory = handle.request.trajectory
        stamp = trajectory.header.stamp
        start_s = stamp.sec + stamp.nanosec * 1e-9
        self._end("preempted", FollowJointTrajectory.Result.INVALID_GOAL)
        try:
            self._arm.accept(joint_path(trajectory, self._contract), self._now_s(), start_s or None)
        except TrajectoryRejected as error:
            handle.abort()
            return FollowJointTrajectory.Result(error_code=FollowJointTrajectory.Result.INVALID_GOAL,
                                                error_string=str(error))
        print(f"trajectory of {len(trajectory.points)} points", flush=True)
        future: Future = Future(executor=self.executor)
        self._goal = (future, handle)
        return await future

    def _end(self, text: str, code: int) -> None:
        if self._goal is not None:
            (future, handle), self._goal = self._goal, None
            handle.succeed() if code == FollowJointTrajectory.Result.SUCCESSFUL else handle.abort()
            future.set_result(FollowJointTrajectory.Result(error_code=code, error_string=text))

    def _grip(self, handle: Any) -> GripperCommand.Result:
        self._finger = handle.request.command.position
        print(f"gripper to {self._finger:.3f} with {handle.request.command.max_effort:g}", flush=True)
        handle.succeed()
        return GripperCommand.Result(position=self._finger, reached_goal=True)

    def _grip_parallel(self, handle: Any) -> ParallelGripperCommand.Result:
        command = handle.request.command
        self._finger = command.position[0]
        print(f"parallel gripper {command.name[0]} to {self._finger:.3f}", flush=True)
        handle.succeed()
        return ParallelGripperCommand.Result(reached_goal=True)

    def _tick(self) -> None:
        now_s = self._now_s()
        state = self._arm.desired(now_s)
        if self._flags["abort"]:
            self._arm.hold(state.positions)
            self._end("joint 1 is stuck", FollowJointTrajectory.Result.PATH_TOLERANCE_VIOLATED)
        elif self._arm.done(now_s):
            self._end("", FollowJointTrajectory.Result.SUCCESSFUL)
        message = JointState(name=[*self._contract.robot.joints, self._contract.gripper.joint],
                             position=[*state.positions.tolist(), self._finger],
                             velocity=[*state.velocities.tolist(), 0.0])
        message.header.stamp = self.get_clock().now().to_msg()
        self._states.publish(message)
        if not self._flags["silent"]:
            self._controller_state.publish(controller_state_message(
                JointTrajectoryControllerState, self._contract.robot.joints, state, state.positions.tolist(),
                state.velocities.tolist(), message.header.stamp))


def main() -> None:
    contract = Contract.load(sys.argv[1])
    rclpy.init()
    executor = SingleThreadedExecutor()
    executor.add_node(Robot(contract))
    executor.add_node(controller_node("arm_controller", "", contract.robot.joints, False))
    executor.spin()


if __name__ == "__main__":
    main()
