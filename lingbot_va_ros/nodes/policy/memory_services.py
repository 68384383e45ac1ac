"""The services of the memory: reset, set_instruction, save and load."""

from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

from lingbot_va_ros.motion.plan_slot import PlanSlot
from lingbot_va_ros.nodes.policy.answers import answer_of
from lingbot_va_ros.nodes.policy.instruction import Instruction
from lingbot_va_ros.nodes.policy.outputs import PolicyOutputs
from lingbot_va_ros.nodes.policy.phase import NodePhase
from lingbot_va_ros.nodes.stamps import stamp_of
from lingbot_va_ros.policy.runtime.clock import Clock
from lingbot_va_ros.policy.runtime.control_owner import ControlOwner
from lingbot_va_ros.policy.runtime.inference_thread import InferenceThread
from lingbot_va_ros.policy.runtime.task import normalize_instruction
from lingbot_va_ros.specs.control_mode import ControlMode
from lingbot_va_ros.srv import LoadMemory, ResetMemory, SaveMemory, SetInstruction


class MemoryServices:
    """
    The servers of the four services; each awaits the inference thread.

    :param control: returns the owner of the arm, or None while unconfigured.
    :param group: a callback group that allows concurrent awaits.
    """

    def __init__(
        self, node: Node, clock: Clock, slot: PlanSlot, thread: InferenceThread,
        phase: NodePhase, instruction: Instruction, outputs: PolicyOutputs,
        control: Callable[[], ControlOwner | None], group: CallbackGroup,
    ):
        self._node = node
        self._clock = clock
        self._slot = slot
        self._thread = thread
        self._phase = phase
        self._instruction = instruction
        self._outputs = outputs
        self._control = control
        for kind, name, callback in (
                (ResetMemory, '~/reset_memory', self._on_reset),
                (SetInstruction, '~/set_instruction', self._on_set_instruction),
                (SaveMemory, '~/save_memory', self._on_save),
                (LoadMemory, '~/load_memory', self._on_load)):
            node.create_service(kind, name, callback, callback_group=group)

    async def _on_reset(
        self, request: ResetMemory.Request, response: ResetMemory.Response,
    ) -> ResetMemory.Response:
        instruction = normalize_instruction(request.instruction)
        if self._phase.name == 'configuring':  # the new memory will be empty
            self._slot.stop(new_epoch=True)
            if instruction:
                self._instruction.change(instruction)
            forgotten, message = 0, 'the memory is empty: the policy is being configured'
        elif not self._phase.configured:
            response.success = False
            response.message = f'the policy is {self._phase.name}: configure it first'
            response.stamp = stamp_of(self._clock.now_ns())
            return response
        else:
            try:
                forgotten = await self._reset(instruction)
            except Exception as error:  # the memory was reset; only the text failed
                self._instruction.sync_parameter()
                return self._failed(response, error)
            message = f'dropped {forgotten} frames'
        self._instruction.sync_parameter()
        response.success, response.message = True, message
        response.forgotten_frames, response.epoch = forgotten, self._slot.epoch
        # A chunk of the old epoch may have a stamp in the future.
        response.stamp = stamp_of(max(self._clock.now_ns(), self._outputs.last_chunk_ns))
        self._outputs.publish_status()
        return response

    async def _reset(self, instruction: str) -> int:
        """
        Forget the episode, wait until a new instruction is encoded, and return the frames.

        :raises Exception: the text cannot be encoded.
        """
        if not instruction:
            return await answer_of(self._node, self._thread.reset())
        forgotten, encoded = await answer_of(self._node, self._instruction.request(
            instruction, lambda scheduler, text: scheduler.reset(text), new_epoch=True))
        await answer_of(self._node, encoded)
        return forgotten

    async def _on_set_instruction(
        self, request: SetInstruction.Request, response: SetInstruction.Response,
    ) -> SetInstruction.Response:
        instruction = normalize_instruction(request.instruction)
        taken = self._instruction.change(instruction)
        self._instruction.sync_parameter()
        self._outputs.publish_status()
        if self._phase.configured:
            try:
                _, encoded = await answer_of(self._node, taken)
                await answer_of(self._node, encoded)
            except Exception as error:
                self._instruction.sync_parameter()
                return self._failed(response, error)
        response.success = True
        response.message = (
            f'the instruction is now {instruction!r}' if instruction
            else 'no instruction: the policy waits for one')
        return response

    async def _on_save(
        self, request: SaveMemory.Request, response: SaveMemory.Response,
    ) -> SaveMemory.Response:
        rejection = self._no_memory_yet()
        if rejection:
            response.success, response.message = False, rejection
            return response
        try:
            response.frames = await answer_of(self._node, self._thread.ask(
                lambda scheduler: scheduler.save(request.name), interrupts=False))
        except ValueError as error:
            response.success, response.message = False, str(error)
            return response
        except Exception as error:
            return self._failed(response, error)
        response.success = True
        response.message = f'saved {response.frames} frames as {request.name!r}'
        return response

    async def _on_load(
        self, request: LoadMemory.Request, response: LoadMemory.Response,
    ) -> LoadMemory.Response:
        rejection = self._no_memory_yet() or self._not_on_hold()
        if rejection:
            response.success, response.message = False, rejection
            response.epoch = self._slot.epoch
            return response
        try:
            response.frames = await answer_of(
                self._node, self._thread.ask(lambda scheduler: scheduler.restore(request.name)))
        except ValueError as error:
            response.success, response.message = False, str(error)
            response.epoch = self._slot.epoch
            return response
        except Exception as error:
            return self._failed(response, error)
        self._instruction.sync_parameter()
        response.success, response.epoch = True, self._slot.epoch
        response.message = f'loaded the {response.frames} frames of {request.name!r}'
        self._outputs.publish_status()
        return response

    def _no_memory_yet(self) -> str:
        """Return the reason why there is no memory, or ''."""
        if self._phase.configured:
            return ''
        return f'the policy is {self._phase.name}: there is no memory until it is configured'

    def _not_on_hold(self) -> str:
        """Return the reason why the arm is not held, or ''."""
        control = self._control()
        mode = control.mode if control is not None else None
        if mode == ControlMode.HOLD or (mode is None and self._phase.name == 'inactive'):
            return ''
        known = 'not known' if control is None else control.mode_name
        return f'control_mode is {known}; a memory can be loaded in HOLD'

    def _failed(self, response: Any, error: Exception) -> Any:
        """Answer that the inference thread failed, so that the client does not wait forever."""
        self._node.get_logger().error(f'{type(error).__name__}: {error}')
        response.success, response.message = False, str(error)
        if hasattr(response, 'epoch'):
            response.epoch = self._slot.epoch
        if hasattr(response, 'stamp'):
            response.stamp = stamp_of(self._clock.now_ns())
        return response
