"""What cannot be a name is answered here: nobody is asked, and nothing but a name gets into an address or a shell.

A service's name is answered as one that is none of those that may be viewed; the other words are usage.
"""

from __future__ import annotations

from userapi.cli.failure import Failure, no_service


def is_name(text: str) -> bool:
    """Can it be the name of a service, or of a group of services?"""
    from policy import names

    try:
        names.service_name(text)
    except ValueError:
        return False
    return True


def spelled(
    service: str | None = None, user: str | None = None, signal: str | None = None, reason: str | None = None
) -> None:
    """Raises Failure."""
    if service is not None and not is_name(service):
        raise no_service(service)
    if user is None and signal is None and not reason:
        return
    from policy import names

    try:
        if user is not None:
            names.user_name(user)
        if signal is not None:
            names.signal_name(signal)
        if reason:
            names.reason(reason)
    except ValueError as error:
        raise Failure("usage", str(error)) from None
