"""Reads the platform's own options off descriptors."""

from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from storyloom.type.v1 import options_pb2

# The generated types do not know that these are extensions.
READS = ("Get", "List", "BatchGet", "Check", "BatchCheck", "Explain", "Preview", "Render", "Test", "Search", "Watch")
_REQUIRES: Any = options_pb2.requires
_SENSITIVE: Any = options_pb2.sensitive
_POLICY_ATTRIBUTE: Any = options_pb2.policy_attribute
_FIELD_BEHAVIOR: Any = field_behavior_pb2.field_behavior
INPUT_ONLY: Any = field_behavior_pb2.INPUT_ONLY


def requires(method: MethodDescriptor) -> options_pb2.Requires:
    """Who may call the RPC, as it declares."""
    found: options_pb2.Requires = method.GetOptions().Extensions[_REQUIRES]
    return found


def is_sensitive(field: FieldDescriptor) -> bool:
    """Whether the field's values are personal or secret."""
    return bool(field.GetOptions().Extensions[_SENSITIVE])


def is_input_only(field: FieldDescriptor) -> bool:
    """Whether the field's values are sent and never shown, as passwords are."""
    return bool(INPUT_ONLY in field.GetOptions().Extensions[_FIELD_BEHAVIOR])


def is_policy_attribute(field: FieldDescriptorProto) -> bool:
    """Whether policies may use the field."""
    return bool(field.options.Extensions[_POLICY_ATTRIBUTE])


def is_read(path: str) -> bool:
    """Whether the RPC of this path changes nothing, as its verb says: it may be sent again."""
    return path.rsplit("/", 1)[1].startswith(READS)
