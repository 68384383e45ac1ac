"""The import rule of docs/explanation/architecture.md: a layer imports only those below it."""

import ast
from pathlib import Path

import pytest

PACKAGE = 'lingbot_va_ros'
SOURCES = Path(__file__).resolve().parents[1] / PACKAGE

# What each layer may import of the package, as prefixes of module names; '' stands for the modules
# that lie in the package's own folder and import nothing of it. The lowest layers come first.
ALLOWED = {
    '': [],
    'motion': ['motion'],
    'specs': ['specs'],
    'model': ['specs', 'model'],
    'lerobot': ['specs', 'model', 'lerobot'],
    'robot': ['motion', 'specs', 'robot'],
    'mux': ['motion', 'specs', 'robot', 'mux'],
    'policy': ['motion', 'specs', 'model', 'lerobot', 'robot', 'policy'],
    'serving': ['specs', 'policy', 'serving'],
    'sim': ['motion', 'specs', 'robot', 'sim'],
    'evaluation': ['motion', 'specs', 'robot', 'mux', 'policy', 'sim', 'evaluation'],
    'training': ['motion', 'specs', 'model', 'robot', 'policy', 'sim', 'evaluation', 'training'],
    'nodes': ['motion', 'specs', 'robot', 'mux', 'policy', 'sim', 'nodes'],
    'launching': ['specs', 'launching'],
    'cli': ['motion', 'specs', 'model', 'robot', 'mux', 'policy', 'serving', 'sim', 'evaluation',
            'training', 'nodes', 'cli'],
}
WITHOUT_ROS = ('', 'motion', 'specs', 'model', 'lerobot', 'robot', 'mux', 'policy', 'serving',
               'sim', 'evaluation', 'training')
# Neither themselves nor through what they import.
WITHOUT_TORCH = ('', 'motion', 'specs', 'robot', 'mux', 'sim', 'launching')
# Nodes call the network through the layers below, never by hand.
WITHOUT_TORCH_OF_THEIR_OWN = ('nodes',)

ROS = ('rclpy', 'launch', 'launch_ros', 'cv_bridge', 'rosidl_runtime_py', 'rosidl_parser',
       'tf2_ros', 'message_filters', f'{PACKAGE}.msg', f'{PACKAGE}.srv', f'{PACKAGE}.action')
ROS_PREFIXES = ('ament_', 'rosidl_', 'ros2')
ROS_SUFFIXES = ('_msgs', '_srvs', '_interfaces')
TORCH = ('torch', 'torchvision', 'diffusers', 'transformers', 'safetensors.torch', 'triton',
         'flash_attn', 'accelerate', 'peft')


def is_ros(module: str) -> bool:
    """Tell whether importing `module` needs a ROS installation."""
    top = module.split('.')[0]
    return (within(module, ROS) or top.startswith(ROS_PREFIXES) or top.endswith(ROS_SUFFIXES))


def within(module: str, names) -> bool:
    """Tell whether `module` is one of `names` or lies in one."""
    return any(module == name or module.startswith(name + '.') for name in names)


def modules_of(sources: Path) -> dict[str, Path]:
    """Return {name within the package: file}, 'robot' for robot/__init__.py."""
    found = {}
    for path in sorted(sources.rglob('*.py')):
        parts = path.relative_to(sources).with_suffix('').parts
        found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return found


def imports_of(name: str, path: Path) -> set[str]:
    """
    Return every module that a file imports anywhere in it, by full name.

    `from a import b` counts as `a` and as `a.b`: from the text alone, b may be a module.
    """
    folder = ('.'.join([PACKAGE, name]) if path.name == '__init__.py'
              else '.'.join([PACKAGE, *name.split('.')[:-1]])).rstrip('.')
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                parents = folder.split('.')[:len(folder.split('.')) - node.level + 1]
                base = '.'.join([*parents, base]).rstrip('.')
            imported.add(base)
            imported.update(f'{base}.{alias.name}' for alias in node.names)
    return imported


def layer_of(name: str) -> str:
    """Return the folder that a module lies in, '' for the package's own."""
    top = name.split('.')[0]
    return top if top in ALLOWED else ''


def breaches(sources: Path) -> list[str]:
    """Return one line for each import that the rule forbids in a package's folder."""
    modules = modules_of(sources)
    unknown = {name.split('.')[0] for name, path in modules.items()
               if '.' in name or path.name == '__init__.py'} - set(ALLOWED)
    found = [f'{folder}/ is not one of the layers' for folder in sorted(unknown) if folder]
    imports = {name: imports_of(name, path) for name, path in modules.items()}

    def own(module: str):
        """Return the name within the package of a module of ours, or None."""
        inside = module.removeprefix(PACKAGE).lstrip('.')
        return inside if within(module, [PACKAGE]) and inside in modules else None

    def reached(name: str) -> set[str]:
        seen, waiting = set(), [name]
        while waiting:
            module = waiting.pop()
            if module in seen or module not in modules:
                continue
            seen.add(module)
            # Importing a.b runs a/__init__.py first.
            if '.' in module:
                waiting.append(module.rsplit('.', 1)[0])
            waiting.extend(filter(None, map(own, imports[module])))
        return seen

    for name in sorted(modules):
        layer = layer_of(name)
        for module in sorted(imports[name]):
            inside = own(module)
            if inside and layer_of(inside) and not within(inside, ALLOWED[layer]):
                # `from x.policy import policy_file` names the folder as well as the module.
                if not any(allowed.startswith(inside + '.') and f'{PACKAGE}.{allowed}'
                           in imports[name] for allowed in ALLOWED[layer]):
                    found.append(f'{name} imports {inside}')
            if layer in WITHOUT_ROS and is_ros(module):
                found.append(f'{name} imports {module} (ROS)')
            if layer in WITHOUT_TORCH_OF_THEIR_OWN and within(module, TORCH):
                found.append(f'{name} imports {module} (torch)')
        if layer in WITHOUT_TORCH:
            for via in sorted(reached(name)):
                for module in sorted(imports[via]):
                    if within(module, TORCH):
                        found.append(f'{name} imports {module} (torch) through {via}')
    return found


def test_every_module_imports_only_layers_below_it():
    assert modules_of(SOURCES), f'no modules in {SOURCES}'
    assert breaches(SOURCES) == []


def test_the_layer_map_of_the_guide_is_the_rule():
    guide = SOURCES.parent / 'docs' / 'explanation' / 'code.md'
    ranks, allowed = {}, {}
    for line in guide.read_text().splitlines():
        parts = line.split()
        if parts[2:3] == ['↓']:
            ranks[parts[1]], allowed[parts[1]] = int(parts[0]), set(parts[3:])
    assert allowed == {
        layer: set(below) - {layer} for layer, below in ALLOWED.items() if layer}
    for layer, below in allowed.items():
        assert ranks[layer] == max((ranks[each] + 1 for each in below), default=0), layer


@pytest.mark.parametrize('file, line, breach', [
    ('robot/limits.py', 'import torch', 'robot.limits imports torch (torch) through robot.limits'),
    ('robot/limits.py', 'def f():\n    from rclpy.node import Node',
     'robot.limits imports rclpy.node (ROS)'),
    ('robot/limits.py', 'from lingbot_va_ros.policy import session',
     'robot.limits imports policy'),
    ('robot/limits.py', 'from ..policy.session import Session',
     'robot.limits imports policy.session'),
    ('model/network.py', 'from lingbot_va_ros.nodes import qos', 'model.network imports nodes'),
    ('motion/plan.py', 'from sensor_msgs.msg import Image',
     'motion.plan imports sensor_msgs.msg (ROS)'),
    ('sim/scene.py', 'from lingbot_va_ros.msg import ControlMode',
     'sim.scene imports lingbot_va_ros.msg (ROS)'),
    ('nodes/qos.py', 'import torch.nn', 'nodes.qos imports torch.nn (torch)'),
    ('resources.py', 'import rclpy', 'resources imports rclpy (ROS)'),
    ('helpers/text.py', '', 'helpers/ is not one of the layers'),
])
def test_the_rule_sees_a_breach(tmp_path, file, line, breach):
    for name in ('policy/session.py', 'nodes/qos.py', 'policy/__init__.py', 'nodes/__init__.py',
                 '__init__.py', file):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / file).write_text(line)
    assert breach in breaches(tmp_path)


def test_torch_is_seen_through_another_module(tmp_path):
    (tmp_path / 'specs').mkdir()
    (tmp_path / 'robot').mkdir()
    (tmp_path / 'specs' / '__init__.py').write_text('')
    (tmp_path / 'specs' / 'policy_file.py').write_text('import torch')
    (tmp_path / 'robot' / 'map.py').write_text('from lingbot_va_ros.specs import policy_file')
    assert 'robot.map imports torch (torch) through specs.policy_file' in breaches(tmp_path)
