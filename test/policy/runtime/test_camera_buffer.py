"""The buffer of the newest camera images, read by time."""

import pytest

from lingbot_va_ros.policy.runtime.camera_buffer import CameraBuffer, CameraFault, MOST_IMAGES

NOW = 1_700_000_000_000_000_000
MS = 1_000_000


def make_rings(keep=2.0, **stamps):
    """Return rings of which each camera has images at some milliseconds after NOW."""
    rings = CameraBuffer(list(stamps), keep)
    for camera, times in stamps.items():
        for time in times:
            rings.add(camera, NOW + time * MS, f'{camera} {time}')
    return rings


def shown(picked):
    return {camera: entry.image for camera, entry in picked.items()}


def test_each_camera_gives_its_image_nearest_to_a_time():
    rings = make_rings(head=[0, 33, 66], wrist=[10, 43, 76])
    assert shown(rings.pick(NOW + 40 * MS, 0.1)) == {'head': 'head 33', 'wrist': 'wrist 43'}


def test_an_image_too_far_off_is_refused_by_camera():
    rings = make_rings(head=[0, 100], wrist=[0])
    with pytest.raises(CameraFault, match=r'camera wrist: .* 0\.100 s off .* 0\.050 s'):
        rings.pick(NOW + 100 * MS, 0.05)


def test_an_image_just_within_the_skew_is_taken():
    rings = make_rings(head=[0])
    assert shown(rings.pick(NOW + 50 * MS, 0.05)) == {'head': 'head 0'}


def test_a_camera_without_images_is_named():
    rings = make_rings(head=[0], wrist=[])
    for read in (lambda: rings.pick(NOW, 0.1), lambda: rings.newest(0.1)):
        with pytest.raises(CameraFault, match='no image from camera wrist'):
            read()


def test_the_camera_furthest_behind_sets_the_time_of_the_newest_images():
    rings = make_rings(head=[0, 33, 66], wrist=[10, 40])
    assert shown(rings.newest(0.1)) == {'head': 'head 33', 'wrist': 'wrist 40'}


def test_newest_images_too_far_apart_are_refused():
    rings = make_rings(head=[500], wrist=[0])
    with pytest.raises(CameraFault, match='camera head'):
        rings.newest(0.1)


def test_an_image_tells_whether_all_cameras_reach_further():
    rings = make_rings(head=[], left=[], right=[])
    assert not rings.add('head', NOW, None) and not rings.add('left', NOW + 10 * MS, None)
    assert rings.add('right', NOW + 20 * MS, None), 'every camera has shown something'
    assert rings.add('head', NOW + 33 * MS, None), 'head had been furthest behind'
    assert not rings.add('right', NOW + 53 * MS, None), 'left is furthest behind'
    assert not rings.add('left', NOW + 5 * MS, None), 'out of order'
    assert rings.add('left', NOW + 43 * MS, None)


def test_a_set_of_images_is_looked_at_once():
    rings = make_rings(head=[0], left=[1], right=[2])
    rings.add('right', NOW + 3 * MS, None)
    for begin in (33, 66, 100):
        said = [rings.add(camera, NOW + (begin + place) * MS, None)
                for place, camera in enumerate(('head', 'left', 'right'))]
        assert said == [False, False, True]


def test_after_the_clock_has_jumped_back_cameras_reach_further_again():
    rings = make_rings(head=[500], wrist=[500])
    rings.clear()
    rings.add('head', NOW, None)
    assert rings.add('wrist', NOW, None)


def test_a_hundred_old_images_do_not_go_at_once():
    rings = make_rings(keep=2.0, head=range(0, 1000, 10))
    rings.add('head', NOW + 10_000 * MS, 'after a silence')
    assert rings.pick(NOW, 0.1)['head'].image != 'after a silence'
    for time in range(10_010, 11_000, 10):
        rings.add('head', NOW + time * MS, None)
    with pytest.raises(CameraFault, match='camera head'):
        rings.pick(NOW + 900 * MS, 0.1)


def test_a_time_is_reached_when_every_camera_has_an_image_from_then_or_later():
    rings = make_rings(head=[0, 33], wrist=[10])
    assert rings.reached(NOW + 10 * MS) and not rings.reached(NOW + 11 * MS)
    rings.add('wrist', NOW + 43 * MS, None)
    assert rings.reached(NOW + 33 * MS)


def test_a_camera_without_images_reaches_no_time():
    assert not make_rings(head=[5], wrist=[]).reached(NOW)


def test_an_image_out_of_order_is_dropped():
    rings = make_rings(head=[0, 33])
    rings.add('head', NOW + 33 * MS, 'again')
    rings.add('head', NOW + 10 * MS, 'late')
    assert shown(rings.pick(NOW + 33 * MS, 0.1)) == {'head': 'head 33'}
    assert shown(rings.pick(NOW + 10 * MS, 0.1)) == {'head': 'head 0'}


def test_images_older_than_the_buffer_are_dropped():
    rings = make_rings(keep=0.05, head=[0, 33, 66, 99])
    with pytest.raises(CameraFault, match='camera head'):
        rings.pick(NOW + 33 * MS, 0.01)
    assert shown(rings.pick(NOW + 66 * MS, 0.01)) == {'head': 'head 66'}


def test_a_ring_holds_no_more_images_than_allowed_at_any_rate():
    rings = make_rings(head=range(3 * MOST_IMAGES))
    oldest = 2 * MOST_IMAGES
    assert shown(rings.pick(NOW, 10.0)) == {'head': f'head {oldest}'}


def test_silent_and_late_cameras_are_faults_each_on_a_line():
    rings = make_rings(head=[0], wrist=[], other=[900])
    lines = rings.faults(NOW + 1000 * MS, 0.5)
    assert len(lines) == 2
    assert 'head' in lines[0] and lines[1] == 'no image from camera wrist'


def test_cameras_in_time_are_no_fault():
    assert make_rings(head=[0], wrist=[500]).faults(NOW + 500 * MS, 0.5) == []


def test_cleared_rings_are_empty_and_take_an_earlier_clock():
    rings = make_rings(head=[100])
    rings.clear()
    assert rings.newest_ns('head') is None
    rings.add('head', NOW, 'earlier')
    assert rings.newest_ns('head') == NOW


def test_a_bad_image_is_dropped_and_its_neighbor_found():
    rings = make_rings(head=[0, 33, 66], wrist=[0])
    bad = rings.pick(NOW + 40 * MS, 0.1)['head']
    assert rings.stand_in('head', bad, NOW + 50 * MS, 0.1).image == 'head 66'
    assert rings.stand_in('head', bad, NOW + 10 * MS, 0.1).image == 'head 0'  # dropped once
    assert rings.stand_in('head', bad, NOW + 40 * MS, 0.01) is None
    assert shown(rings.pick(NOW + 40 * MS, 0.1)) == {'head': 'head 66', 'wrist': 'wrist 0'}
