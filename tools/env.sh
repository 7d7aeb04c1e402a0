# Source this: a shell with the environment and the built workspace. `. tools/env.sh`
_corft_root="$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")/.." && pwd)"
. "$_corft_root/.venv/bin/activate"
if [ -z "${ROS_DISTRO:-}" ] || [ "${CORFT_STANDALONE:-}" = 1 ]; then
    export CORFT_STANDALONE=1 ROS_DISTRO="${ROS_DISTRO:-kilted}"
    export AMENT_PREFIX_PATH="$VIRTUAL_ENV" LD_LIBRARY_PATH="$VIRTUAL_ENV/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    # The wheels' DDS must not leave the machine unless asked to.
    export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}"
fi
. "$_corft_root/install/local_setup.bash"
export MUJOCO_GL="${MUJOCO_GL:-egl}"
if [ "${CORFT_DEV:-}" = 1 ]; then  # run the sources, not the build
    export PYTHONPATH="$_corft_root/corft_core:$_corft_root/ros2_ws/src/corft:$PYTHONPATH"
fi
unset _corft_root
