"""Invalid arguments of lingbot_va give one line with the expected values."""

import pytest

from lingbot_va_ros.cli.main import COMMANDS, main


@pytest.mark.parametrize('words, part', [
    ([], 'no command given; expected one of: demo'),
    (['dmeo'], "unknown command 'dmeo'; expected one of: demo"),
    (['--fast'], '--fast'),
    (['demo', '--chunks', '0'], "--chunks: '0' is not a whole number from 1"),
    (['demo', '--chunks', 'many'], "--chunks: 'many' is not a whole number from 1"),
    (['demo', '--task', 'wipe_plate,fold'], "--task: 'fold': expected one or several of table"),
    (['demo', '--fast'], '--fast'),
])
def test_a_mistake_is_named_in_one_line(words, part, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    output = capsys.readouterr()
    assert ended.value.code == 2
    assert output.out == ''
    assert part in output.err
    assert output.err.count('\n') == 1


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(['--help'])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert COMMANDS
    assert all(name in output for name in COMMANDS)


@pytest.mark.parametrize('command', COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, '--help'])
    assert ended.value.code == 0
    assert f'lingbot_va {command}' in capsys.readouterr().out


def test_a_checkpoint_that_is_no_folder_is_named(tmp_path, capsys):
    missing = tmp_path / 'nowhere'
    assert main(['demo', '--output', str(tmp_path), '--checkpoint', str(missing)]) == 1
    assert capsys.readouterr().err == f'lingbot_va demo: checkpoint {missing} is not a folder\n'


def test_a_takeover_of_a_task_where_there_is_none_is_refused(tmp_path, capsys):
    assert main([
        'demo', '--output', str(tmp_path / 'out'), '--takeover', '--task', 'open_boxes']) == 1
    error = capsys.readouterr().err
    assert error == 'lingbot_va demo: --takeover is only for wipe_plate, not for open_boxes\n'
    assert not (tmp_path / 'out').exists()


def test_an_output_folder_that_cannot_be_made_is_named(tmp_path, capsys):
    (tmp_path / 'file').touch()
    assert main(['demo', '--output', str(tmp_path / 'file')]) == 1
    error = capsys.readouterr().err
    assert str(tmp_path / 'file') in error
    assert error.count('\n') == 1
