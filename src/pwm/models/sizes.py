"""Network sizes by name: those of the models released by TD-MPC2 (arXiv 2310.16828, table 8)."""

from __future__ import annotations

from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "1m": dict(latent_dim=128, hidden_dim=384, encoder_dim=256, encoder_layers=1),
    "5m": dict(latent_dim=512, hidden_dim=512, encoder_dim=256, encoder_layers=1),
    "19m": dict(latent_dim=768, hidden_dim=1024, encoder_dim=1024, encoder_layers=2),
    "48m": dict(latent_dim=768, hidden_dim=1792, encoder_dim=1792, encoder_layers=3),
    "317m": dict(latent_dim=1376, hidden_dim=4096, encoder_dim=4096, encoder_layers=4),
}
# Q heads of each size, where a model has any
Q_HEADS = {"1m": 2, "5m": 5, "19m": 5, "48m": 5, "317m": 8}
