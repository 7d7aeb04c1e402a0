"""The robot's graph: camera_node, executor_node and, with a policy, policy_node; lifecycle_manager brings them up.

ros2 launch corft bringup.launch.py                                        # while recording demonstrations
ros2 launch corft bringup.launch.py checkpoint:=RUN/checkpoints/co_rft     # to drive the robot with a policy
ros2 launch corft bringup.launch.py server:=tcp://HOST:5555                # the same, the policy on another machine
ros2 launch corft bringup.launch.py checkpoint:=… execute:=false           # to see what would be sent
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable, Shutdown
from launch.conditions import IfCondition
from launch.substitutions import EnvironmentVariable, EqualsSubstitution, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from corft.camera_parameters import CAMERA_PARAMETERS
from corft.executor.parameters import EXECUTOR_PARAMETERS, SHARED_OPTIONS
from corft.launch_arguments import LOG_LEVEL, NAMESPACE, USE_SIM_TIME, argument, chosen, value_type
from corft.policy.checks import check_one_policy, check_robot, checkpoint_folder
from corft.policy.parameters import POLICY_PARAMETERS
from corft_core.contract import Contract

# One argument for parameters of two nodes that must agree: chunk_mode, handoff_s, and replan_steps, the actions taken
# from a chunk, which executor_node calls execute_steps.
SHARED = ("contract", "chunk_mode", "handoff_s", "execute_steps")


def generate_launch_description() -> LaunchDescription:
    """The lifecycle nodes and their manager; a bring-up that fails ends the launch with the reason."""
    share = FindPackageShare("corft")
    cameras = chosen(CAMERA_PARAMETERS, "cameras")
    policy_rows = [row for row in POLICY_PARAMETERS if row.name not in SHARED]
    executor_rows = [row for row in EXECUTOR_PARAMETERS if row.name not in SHARED]
    both = SHARED_OPTIONS
    arguments = [
        DeclareLaunchArgument("contract", default_value=PathJoinSubstitution(
            [share, "config", "panda_cell", "contract.yaml"]),
            description="The robot's contract (YAML). A checkpoint trained for another robot is refused."),
        *(DeclareLaunchArgument(row.name, **argument(row)) for row in (
            *policy_rows, *both, *executor_rows, *cameras, NAMESPACE, USE_SIM_TIME, LOG_LEVEL))]

    def values(rows) -> dict[str, ParameterValue]:
        return {row.name: ParameterValue(LaunchConfiguration(row.name), value_type=value_type(row)) for row in rows}

    common = {"contract": ParameterValue(LaunchConfiguration("contract"), value_type=str), **values([USE_SIM_TIME])}
    options = {"namespace": LaunchConfiguration("namespace"), "output": "screen",
               "ros_arguments": ["--log-level", LaunchConfiguration("log_level")]}

    def lifecycle_node(name: str, parameters: dict[str, ParameterValue]) -> Node:
        # A node that dies is started anew after a moment; the manager then configures and activates it.
        return Node(package="corft", executable=name, name=name, parameters=[{**common, **parameters}],
                    respawn=True, respawn_delay=2.0, **options)

    def give_up(event, _: LaunchContext) -> Shutdown | None:
        """The manager ends by itself only when bring-up failed for good; one that was killed is started anew."""
        return Shutdown(reason="lifecycle_manager has ended") if event.returncode >= 0 else None

    def graph(context: LaunchContext) -> list[Node]:
        # Checked before anything starts, so that bad input ends the launch at once and with a status that says so.
        robot = Contract.load(LaunchConfiguration("contract").perform(context))
        checkpoint, server = (LaunchConfiguration(name).perform(context) for name in ("checkpoint", "server"))
        check_one_policy(checkpoint, server)
        if checkpoint:
            folder = checkpoint_folder(checkpoint)
            check_robot(Contract.load(folder / "contract.json"), robot, folder)
        steps = values(chosen(POLICY_PARAMETERS, "replan_steps"))["replan_steps"]
        nodes = {
            "camera_node": values(cameras),
            "policy_node": values([*policy_rows, *both]),
            "executor_node": values([*executor_rows, *both]) | {"execute_steps": steps}}
        if not checkpoint and not server:
            del nodes["policy_node"]
        manager = Node(
            package="corft", executable="lifecycle_manager", name="lifecycle_manager",
            parameters=[{"node_names": list(nodes)}], respawn=True, respawn_delay=1.0, on_exit=give_up, **options)
        return [*(lifecycle_node(name, parameters) for name, parameters in nodes.items()), manager]

    return LaunchDescription([
        *arguments,
        SetEnvironmentVariable(
            "FASTDDS_DEFAULT_PROFILES_FILE", PathJoinSubstitution([share, "config", "fastdds_profile.xml"]),
            condition=IfCondition(
                EqualsSubstitution(EnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", default_value=""), ""))),
        OpaqueFunction(function=graph),
    ])
