from envs.bridge.proto import communicator_pb2 as _communicator_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Message(_message.Message):
    __slots__ = ("header", "unity_output", "unity_input")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    UNITY_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    UNITY_INPUT_FIELD_NUMBER: _ClassVar[int]
    header: _communicator_pb2.HeaderProto
    unity_output: Output
    unity_input: Input
    def __init__(self, header: _Optional[_Union[_communicator_pb2.HeaderProto, _Mapping[str, object]]] = ..., unity_output: _Optional[_Union[Output, _Mapping[str, object]]] = ..., unity_input: _Optional[_Union[Input, _Mapping[str, object]]] = ...) -> None: ...

class Output(_message.Message):
    __slots__ = ("rl_output", "rl_initialization_output", "can_act", "played", "choices")
    class ChoicesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Choices
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Choices, _Mapping[str, object]]] = ...) -> None: ...
    RL_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    RL_INITIALIZATION_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    CAN_ACT_FIELD_NUMBER: _ClassVar[int]
    PLAYED_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    rl_output: RLOutput
    rl_initialization_output: _communicator_pb2.UnityRLInitializationOutputProto
    can_act: bool
    played: _containers.RepeatedCompositeFieldContainer[Played]
    choices: _containers.MessageMap[str, Choices]
    def __init__(self, rl_output: _Optional[_Union[RLOutput, _Mapping[str, object]]] = ..., rl_initialization_output: _Optional[_Union[_communicator_pb2.UnityRLInitializationOutputProto, _Mapping[str, object]]] = ..., can_act: _Optional[bool] = ..., played: _Optional[_Iterable[_Union[Played, _Mapping[str, object]]]] = ..., choices: _Optional[_Mapping[str, Choices]] = ...) -> None: ...

class Played(_message.Message):
    __slots__ = ("choices", "rl_output")
    class ChoicesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Choices
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Choices, _Mapping[str, object]]] = ...) -> None: ...
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    RL_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    choices: _containers.MessageMap[str, Choices]
    rl_output: RLOutput
    def __init__(self, choices: _Optional[_Mapping[str, Choices]] = ..., rl_output: _Optional[_Union[RLOutput, _Mapping[str, object]]] = ...) -> None: ...

class Choices(_message.Message):
    __slots__ = ("continuous", "discrete", "log_probs")
    CONTINUOUS_FIELD_NUMBER: _ClassVar[int]
    DISCRETE_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBS_FIELD_NUMBER: _ClassVar[int]
    continuous: bytes
    discrete: bytes
    log_probs: bytes
    def __init__(self, continuous: _Optional[bytes] = ..., discrete: _Optional[bytes] = ..., log_probs: _Optional[bytes] = ...) -> None: ...

class RLOutput(_message.Message):
    __slots__ = ("agent_infos", "side_channel")
    class AgentInfosEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    AGENT_INFOS_FIELD_NUMBER: _ClassVar[int]
    SIDE_CHANNEL_FIELD_NUMBER: _ClassVar[int]
    agent_infos: _containers.ScalarMap[str, bytes]
    side_channel: bytes
    def __init__(self, agent_infos: _Optional[_Mapping[str, bytes]] = ..., side_channel: _Optional[bytes] = ...) -> None: ...

class AgentInfos(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: _containers.RepeatedCompositeFieldContainer[AgentInfo]
    def __init__(self, value: _Optional[_Iterable[_Union[AgentInfo, _Mapping[str, object]]]] = ...) -> None: ...

class AgentInfo(_message.Message):
    __slots__ = ("reward", "done", "max_step_reached", "id", "action_mask", "observations", "group_id", "group_reward")
    REWARD_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    MAX_STEP_REACHED_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_MASK_FIELD_NUMBER: _ClassVar[int]
    OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_REWARD_FIELD_NUMBER: _ClassVar[int]
    reward: float
    done: bool
    max_step_reached: bool
    id: int
    action_mask: bytes
    observations: _containers.RepeatedCompositeFieldContainer[Observation]
    group_id: int
    group_reward: float
    def __init__(self, reward: _Optional[float] = ..., done: _Optional[bool] = ..., max_step_reached: _Optional[bool] = ..., id: _Optional[int] = ..., action_mask: _Optional[bytes] = ..., observations: _Optional[_Iterable[_Union[Observation, _Mapping[str, object]]]] = ..., group_id: _Optional[int] = ..., group_reward: _Optional[float] = ...) -> None: ...

class Observation(_message.Message):
    __slots__ = ("shape", "compression_type", "compressed_data", "float_data", "compressed_channel_mapping", "dimension_properties", "observation_type", "name")
    class FloatData(_message.Message):
        __slots__ = ("data",)
        DATA_FIELD_NUMBER: _ClassVar[int]
        data: bytes
        def __init__(self, data: _Optional[bytes] = ...) -> None: ...
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_TYPE_FIELD_NUMBER: _ClassVar[int]
    COMPRESSED_DATA_FIELD_NUMBER: _ClassVar[int]
    FLOAT_DATA_FIELD_NUMBER: _ClassVar[int]
    COMPRESSED_CHANNEL_MAPPING_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_TYPE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    compression_type: _communicator_pb2.CompressionTypeProto
    compressed_data: bytes
    float_data: Observation.FloatData
    compressed_channel_mapping: _containers.RepeatedScalarFieldContainer[int]
    dimension_properties: _containers.RepeatedScalarFieldContainer[int]
    observation_type: _communicator_pb2.ObservationTypeProto
    name: str
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., compression_type: _Optional[_Union[_communicator_pb2.CompressionTypeProto, str]] = ..., compressed_data: _Optional[bytes] = ..., float_data: _Optional[_Union[Observation.FloatData, _Mapping[str, object]]] = ..., compressed_channel_mapping: _Optional[_Iterable[int]] = ..., dimension_properties: _Optional[_Iterable[int]] = ..., observation_type: _Optional[_Union[_communicator_pb2.ObservationTypeProto, str]] = ..., name: _Optional[str] = ...) -> None: ...

class Input(_message.Message):
    __slots__ = ("rl_input", "rl_initialization_input", "assignment")
    RL_INPUT_FIELD_NUMBER: _ClassVar[int]
    RL_INITIALIZATION_INPUT_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    rl_input: RLInput
    rl_initialization_input: _communicator_pb2.UnityRLInitializationInputProto
    assignment: Assignment
    def __init__(self, rl_input: _Optional[_Union[RLInput, _Mapping[str, object]]] = ..., rl_initialization_input: _Optional[_Union[_communicator_pb2.UnityRLInitializationInputProto, _Mapping[str, object]]] = ..., assignment: _Optional[_Union[Assignment, _Mapping[str, object]]] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("num_steps", "deterministic", "policies")
    class PoliciesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Policy
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Policy, _Mapping[str, object]]] = ...) -> None: ...
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    DETERMINISTIC_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    num_steps: int
    deterministic: bool
    policies: _containers.MessageMap[str, Policy]
    def __init__(self, num_steps: _Optional[int] = ..., deterministic: _Optional[bool] = ..., policies: _Optional[_Mapping[str, Policy]] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("model", "log_std")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LOG_STD_FIELD_NUMBER: _ClassVar[int]
    model: bytes
    log_std: bytes
    def __init__(self, model: _Optional[bytes] = ..., log_std: _Optional[bytes] = ...) -> None: ...

class RLInput(_message.Message):
    __slots__ = ("agent_actions", "command", "side_channel")
    class AgentActionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    AGENT_ACTIONS_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    SIDE_CHANNEL_FIELD_NUMBER: _ClassVar[int]
    agent_actions: _containers.ScalarMap[str, bytes]
    command: _communicator_pb2.CommandProto
    side_channel: bytes
    def __init__(self, agent_actions: _Optional[_Mapping[str, bytes]] = ..., command: _Optional[_Union[_communicator_pb2.CommandProto, str]] = ..., side_channel: _Optional[bytes] = ...) -> None: ...

class AgentActions(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: _containers.RepeatedCompositeFieldContainer[AgentAction]
    def __init__(self, value: _Optional[_Iterable[_Union[AgentAction, _Mapping[str, object]]]] = ...) -> None: ...

class AgentAction(_message.Message):
    __slots__ = ("vector_actions_deprecated", "continuous_actions", "discrete_actions")
    VECTOR_ACTIONS_DEPRECATED_FIELD_NUMBER: _ClassVar[int]
    CONTINUOUS_ACTIONS_FIELD_NUMBER: _ClassVar[int]
    DISCRETE_ACTIONS_FIELD_NUMBER: _ClassVar[int]
    vector_actions_deprecated: bytes
    continuous_actions: bytes
    discrete_actions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, vector_actions_deprecated: _Optional[bytes] = ..., continuous_actions: _Optional[bytes] = ..., discrete_actions: _Optional[_Iterable[int]] = ...) -> None: ...
