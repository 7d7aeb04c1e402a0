from setuptools import find_packages, setup

setup(
    name="corft_core",
    version="0.4.0",
    packages=find_packages(include=["corft_core", "corft_core.*"]),
    package_data={"": ["*.html", "*.yaml", "*.json", "requirements.txt"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/corft_core"]),
        ("share/corft_core", ["package.xml"]),
    ],
    python_requires=">=3.11",
    license="Apache-2.0",
    description="ROS-free library of corft",
    maintainer="corft maintainers",
    maintainer_email="maintainers@corft.org",
)
