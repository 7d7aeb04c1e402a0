"""The robot's graph: camera_node, executor_node and, with a checkpoint, policy_node; lifecycle_manager brings them up.

ros2 launch corft bringup.launch.py                                        # while recording demonstrations
ros2 launch corft bringup.launch.py checkpoint:=RUN/checkpoints/co_rft     # to drive the robot with a policy
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable, Shutdown
from launch.conditions import IfCondition
from launch.substitutions import EnvironmentVariable, EqualsSubstitution, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    """The lifecycle nodes and their manager; a bring-up that fails ends the launch with the reason."""
    share = FindPackageShare("corft")
    arguments = [
        DeclareLaunchArgument(
            "checkpoint", default_value="",
            description="Checkpoint folder written by the trainer, for example RUN/checkpoints/co_rft; empty: no "
                        "policy, for recording."),
        DeclareLaunchArgument(
            "contract", default_value=PathJoinSubstitution([share, "config", "panda_cell", "contract.yaml"]),
            description="The robot's contract (YAML). A checkpoint trained for another robot is refused."),
        DeclareLaunchArgument(
            "planner", default_value="embedded", choices=["embedded", "moveit"],
            description="Motion planner and collision checker; moveit needs MoveIt's Python package."),
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of all nodes, one a robot."),
        DeclareLaunchArgument(
            "use_sim_time", default_value="false", choices=["true", "false"],
            description="Take the time from /clock: true with a simulated cell."),
        DeclareLaunchArgument(
            "cameras", default_value="", description="Cameras to serve, comma-separated; empty: all in the contract."),
        DeclareLaunchArgument(
            "replan_steps", default_value="5", description="Policy steps between two chunks."),
        DeclareLaunchArgument(
            "device", default_value="cpu", description="Where inference runs: cpu, cuda, cuda:0 …"),
        DeclareLaunchArgument("seed", default_value="0", description="Seed of the policy's noise, for every goal."),
        DeclareLaunchArgument(
            "torch_threads", default_value="0", description="Threads for inference; 0: half of the machine's cores."),
        DeclareLaunchArgument(
            "auto_enable", default_value="false", choices=["true", "false"],
            description="Let the arm follow chunks as soon as the graph is active; false: from a call of "
                        "executor_node/enable on."),
        DeclareLaunchArgument(
            "speed_scale", default_value="1.0", description="Part of the predicted speed that is driven, 0.05 to 1."),
        DeclareLaunchArgument(
            "chunk_mode", default_value="splice", description="How chunks follow each other: splice, receding_horizon, "
                                                              "temporal_ensemble or open_loop."),
        DeclareLaunchArgument(
            "scene", default_value="",
            description="Obstacles (YAML); empty: scene.yaml beside the contract; none: only the robot itself."),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn or error."),
    ]
    common = {
        "use_sim_time": LaunchConfiguration("use_sim_time"),
        "contract": ParameterValue(LaunchConfiguration("contract"), value_type=str),
    }

    def lifecycle_node(name: str, **parameters: object) -> Node:
        # A crashed node is started anew after a moment; the manager then configures and activates it.
        return Node(
            package="corft", executable=name, name=name, namespace=LaunchConfiguration("namespace"), output="screen",
            parameters=[{**common, **parameters}], ros_arguments=["--log-level", LaunchConfiguration("log_level")],
            respawn=True, respawn_delay=2.0)

    def text(name: str) -> ParameterValue:
        return ParameterValue(LaunchConfiguration(name), value_type=str)

    def graph(context: LaunchContext) -> list[Node]:
        from corft.policy_checks import check_robot, checkpoint_folder
        from corft_core.contract import Contract

        # Checked before anything starts, so that bad input ends the launch at once and with a status that says so.
        robot = Contract.load(LaunchConfiguration("contract").perform(context))
        checkpoint = LaunchConfiguration("checkpoint").perform(context)
        if checkpoint:
            folder = checkpoint_folder(checkpoint)
            check_robot(Contract.load(folder / "contract.json"), robot, folder)
        policy = lifecycle_node(
            "policy_node", checkpoint=text("checkpoint"), replan_steps=LaunchConfiguration("replan_steps"),
            device=text("device"), seed=LaunchConfiguration("seed"),
            torch_threads=LaunchConfiguration("torch_threads"))
        names = ["camera_node", *(["policy_node"] if checkpoint else []), "executor_node"]
        manager = Node(
            package="corft", executable="lifecycle_manager", name="lifecycle_manager",
            namespace=LaunchConfiguration("namespace"), output="screen", parameters=[{"node_names": names}],
            ros_arguments=["--log-level", LaunchConfiguration("log_level")],
            on_exit=Shutdown(reason="lifecycle_manager has ended"))
        camera = lifecycle_node("camera_node", cameras=text("cameras"))
        executor = lifecycle_node(
            "executor_node", planner=text("planner"), auto_enable=LaunchConfiguration("auto_enable"),
            speed_scale=LaunchConfiguration("speed_scale"), chunk_mode=text("chunk_mode"), scene=text("scene"))
        return [camera, *([policy] if checkpoint else []), executor, manager]

    return LaunchDescription([
        *arguments,
        SetEnvironmentVariable(
            "FASTDDS_DEFAULT_PROFILES_FILE", PathJoinSubstitution([share, "config", "fastdds_profile.xml"]),
            condition=IfCondition(
                EqualsSubstitution(EnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", default_value=""), ""))),
        OpaqueFunction(function=graph),
    ])
