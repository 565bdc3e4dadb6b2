"""The usual way to serve a sequence model: FastAPI, PyTorch, top-k. Random weights of our model's shape."""

import os

import torch
from fastapi import FastAPI
from pydantic import BaseModel
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
ITEMS, WIDTH, LENGTH = int(os.environ.get("ITEMS", "12000")), 64, 50


class Recommender(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS + 1, WIDTH, padding_idx=0)
        self.places = nn.Embedding(LENGTH, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 4 * WIDTH, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, item_BT: torch.Tensor) -> torch.Tensor:
        length = item_BT.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        x = self.items(item_BT) + self.places(torch.arange(length))
        return self.body(x, mask=mask, is_causal=True)[:, -1] @ self.items.weight.T


class Ask(BaseModel):
    user_id: str
    k: int = 10


class Item(BaseModel):
    item_id: str
    score: float


class Answer(BaseModel):
    user_id: str
    items: list[Item]


model = Recommender().eval()
histories: dict[str, list[int]] = {}
app = FastAPI()


@app.post("/v1/recommend")
async def recommend(ask: Ask) -> Answer:
    history = histories.setdefault(ask.user_id, torch.randint(1, ITEMS, (17,)).tolist())
    with torch.inference_mode():
        scores = model(torch.tensor([history[-LENGTH:]]))[0]
        scores[0] = -torch.inf
        scores[history] = -torch.inf
        best = scores.topk(ask.k)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return Answer(user_id=ask.user_id, items=[Item(item_id=f"i{n}", score=s) for n, s in pairs])
