"""Words of ML-Agents' protocol that both ends of a connection need."""

from __future__ import annotations

SERVICE = "communicator_objects.UnityToExternalProto"
METHOD = "Exchange"
EXCHANGE = f"/{SERVICE}/{METHOD}"

COMMUNICATION_VERSION = "1.5.0"
DIMENSION_PROPERTIES_SINCE = 5  # the minor version that brought them to observations
# Packages of the 1.0.x line read the first `digit.digits.digit` of this and refuse unknown ones.
PACKAGE_VERSION = "1.1.0"

STATUS_OK = 200
STATUS_CLOSING = 400
