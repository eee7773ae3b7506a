"""The run's configuration: frozen sections, read from YAML, checked before anything is allocated.

This package imports neither torch nor megatron, so that the launcher answers at once.
"""

from robustbert.config.operation import AUTO, CheckpointConfig, ClusterConfig, FaultToleranceConfig, MonitoringConfig
from robustbert.config.run_config import RunConfig
from robustbert.config.sections import (
    FORMATS_WITH_PAIRS,
    ConfigError,
    CorpusConfig,
    DataConfig,
    MaskingConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    RunSection,
    TrainConfig,
    TrainTokenizerConfig,
)
from robustbert.config.yaml_file import (
    config_to_dict,
    dump_config,
    dump_names,
    load_config,
    load_dataclass,
    load_names,
    load_section,
    parse_override,
)

__all__ = [
    "AUTO",
    "FORMATS_WITH_PAIRS",
    "CheckpointConfig",
    "ClusterConfig",
    "ConfigError",
    "CorpusConfig",
    "DataConfig",
    "FaultToleranceConfig",
    "MaskingConfig",
    "ModelConfig",
    "MonitoringConfig",
    "OptimConfig",
    "ParallelConfig",
    "RunConfig",
    "RunSection",
    "TrainConfig",
    "TrainTokenizerConfig",
    "config_to_dict",
    "dump_config",
    "dump_names",
    "load_config",
    "load_dataclass",
    "load_names",
    "load_section",
    "parse_override",
]
