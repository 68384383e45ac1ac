"""
Build a wheel from the CMake install, so that pip and colcon install the same files.

CMakeLists.txt is the one description of what the package holds. `pip install .` runs it into a
staging folder and hands the Python package to build_py, and all else (executables, libraries,
headers, shared files, the ament index) to data_files, which pip puts under the prefix. It needs
an environment that has ament_cmake and rosidl: a sourced ROS 2, or the wheels that the Makefile
installs. Use `pip install --no-build-isolation --no-deps .` there.
"""

import os
from pathlib import Path
import shutil
import subprocess
import sys
from xml.etree import ElementTree
import zlib

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
# One build folder for each environment: CMake's cache holds its paths.
BUILD = HERE / 'build' / f'pip_{zlib.crc32(sys.prefix.encode()):08x}'
MANIFEST = ElementTree.parse(HERE / 'package.xml').getroot()
NAME = MANIFEST.findtext('name', '')


def run_cmake() -> Path:
    """Generate, build and install the package into a fresh staging folder and return it."""
    stage = BUILD / 'stage'
    shutil.rmtree(stage, ignore_errors=True)
    environment = dict(os.environ)
    # The wheels' ament prefix is the environment itself; a sourced ROS 2 has named its own.
    for variable in ('AMENT_PREFIX_PATH', 'CMAKE_PREFIX_PATH'):
        known = environment.get(variable, '').split(os.pathsep)
        environment[variable] = os.pathsep.join([*filter(None, known), sys.prefix])
    scripts = Path(sys.prefix) / 'bin'
    environment['PATH'] = os.pathsep.join([str(scripts), environment.get('PATH', os.defpath)])
    generator = ['-G', 'Ninja'] if shutil.which('ninja', path=environment['PATH']) else []
    configure = [
        'cmake', '-S', str(HERE), '-B', str(BUILD / 'cmake'), *generator, '--log-level=WARNING',
        f'-DPython3_EXECUTABLE={sys.executable}', f'-DCMAKE_INSTALL_PREFIX={sys.prefix}',
        '-DBUILD_TESTING=OFF']
    jobs = str(os.cpu_count() or 1)
    for command in (
            configure, ['cmake', '--build', str(BUILD / 'cmake'), '--parallel', jobs],
            ['cmake', '--install', str(BUILD / 'cmake'), '--prefix', str(stage)]):
        subprocess.run(command, check=True, env=environment)
    return stage


class StagedInstall(build_py):
    """Takes the package, and the files around it, from the staging folder."""

    def run(self) -> None:
        """Run CMake and sort what it has installed."""
        stage = run_cmake()
        packages = list(stage.glob(f'**/*-packages/{NAME}'))
        if len(packages) != 1:
            raise RuntimeError(f'expected one Python package {NAME} in {stage}: {packages}')
        target = Path(self.build_lib) / NAME
        # What a module that no longer exists has left here would be packed too.
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(
            packages[0], target, ignore=shutil.ignore_patterns('__pycache__'))
        python_folder = packages[0].parent
        by_folder: dict[str, list[str]] = {}
        for path in sorted(stage.rglob('*')):
            if path.is_file() and python_folder not in path.parents:
                folder = str(path.relative_to(stage).parent)
                by_folder.setdefault(folder, []).append(str(path.relative_to(HERE)))
        self.distribution.data_files = sorted(by_folder.items())

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return the files of the Python package."""
        return [str(path) for path in (Path(self.build_lib) / NAME).rglob('*') if path.is_file()]


class PlatformDistribution(Distribution):
    """A wheel for this Python and machine: it holds generated extension modules."""

    def has_ext_modules(self) -> bool:
        """Return True, though setuptools builds none of them."""
        return True


BUILD.mkdir(parents=True, exist_ok=True)
setup(
    name=NAME,
    version=MANIFEST.findtext('version'),
    description=' '.join(MANIFEST.findtext('description', '').split()),
    license=MANIFEST.findtext('license'),
    packages=[NAME],
    python_requires='>=3.10',
    install_requires=[
        line for line in (HERE / 'requirements.txt').read_text().splitlines()
        if line and not line.startswith('#')],
    cmdclass={'build_py': StagedInstall},
    distclass=PlatformDistribution,
    options={'build': {'build_base': str(BUILD)}, 'egg_info': {'egg_base': str(BUILD)}},
    zip_safe=False,
)
