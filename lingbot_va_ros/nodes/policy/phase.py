"""The phase of the node's lifecycle, and the status that follows from it."""

from dataclasses import dataclass, replace

from lingbot_va_ros.policy.runtime.status import PolicyMode, RuntimeStatus


@dataclass
class NodePhase:
    """
    The phase of the node, read by its services and its publishers.

    :param name: `unconfigured`, `configuring`, `inactive`, `active` or `finalized`.
    :param loading: the current step of loading, one line, or ''.
    :param fault: the last line of the fault that stopped the policy, or ''.
    :param closing: whether the process is ending.
    """

    name: str = 'unconfigured'
    loading: str = ''
    fault: str = ''
    closing: bool = False

    @property
    def active(self) -> bool:
        """Whether the policy is active."""
        return self.name == 'active'

    @property
    def configured(self) -> bool:
        """Whether an engine is loaded."""
        return self.name in ('inactive', 'active')

    def status(self, status: RuntimeStatus, instruction: str) -> RuntimeStatus:
        """
        Return the status to publish: the scheduler's, or that of the lifecycle if it is not
        active.

        :param status: of the scheduler.
        :param instruction: the node's; the scheduler may not have taken it yet.
        """
        status = replace(status, instruction=instruction)
        if self.loading:
            return RuntimeStatus(
                mode=PolicyMode.LOADING, reason=self.loading, instruction=instruction)
        if self.fault:
            return replace(status, mode=PolicyMode.FAULT, reason=self.fault)
        if not self.active:
            return replace(status, mode=PolicyMode.IDLE, reason=self.name)
        return status
