"""Connectivity of each ROI within the run as an input to its token, which a mean over single-ROI tokens cannot represent."""

# Shapes: B batch, R ROIs, N time patches, P patches of a run, K frames of a patch, E channels of a patch embedding,
# M components, D width

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def orthonormal_components(columns_RC: Tensor, components: int) -> Tensor:
    """Return orthonormal weights over ROIs that span what is known of them: (R, M).

    Parameters
    ----------
    columns_RC
        (R, C) what is known of the ROIs, standardised, see ``RoiPosition.columns``; a constant column is put before them.
    components
        M, cut to C + 1 and to R.
    """
    constant_R1 = torch.ones(len(columns_RC), 1, device=columns_RC.device)
    columns_RC = torch.cat([constant_R1, columns_RC], dim=1)[:, :components]
    # on the CPU: not every device has float64, or a QR decomposition
    return torch.linalg.qr(columns_RC.cpu().double())[0].float().to(columns_RC.device)


#: Share of the mean ROI's norm below which an ROI does not vary: what is left of a constant series are rounding errors.
VARIES: Final = 1e-4
#: Spread of correlations over runs below which the runs are one and the same, but for rounding errors.
ALIKE: Final = 1e-3


class ConnectivityCode(nn.Module):
    """Correlations of every ROI with a few components, over the patches that are seen, added to the ROI's tokens.

    A component is a weighted mean over ROIs, its weights an orthonormal basis of what the position code knows of them;
    the code is seed-based connectivity in that basis, a first-order quantity of which everything downstream can take
    means. It enters by a map that starts at zero: an untrained encoder is that without the code.

    Parameters
    ----------
    columns_RC
        (R, C) what is known of the ROIs, standardised; a constant column is put before them.
    components
        M, at most C + 1.
    width
        D.
    """

    components_RM: Tensor
    mean_RM: Tensor
    spread: Tensor

    def __init__(self, columns_RC: Tensor, components: int, width: int) -> None:
        super().__init__()
        basis_RM = orthonormal_components(columns_RC, components)
        self.register_buffer("components_RM", basis_RM)
        self.register_buffer("mean_RM", torch.zeros_like(basis_RM))
        self.register_buffer("spread", torch.ones(()))
        self.map = nn.Linear(basis_RM.shape[1], width)

    def correlations(self, content_BRNE: Tensor, seen_BRN: Tensor | None = None) -> Tensor:
        """Correlations of embedded patches with those of the components.

        Parameters
        ----------
        content_BRNE
            (B, R, N, E) embedded patches, without bias or position.
        seen_BRN
            (B, R, N) 1 for patches that count, 0 for others; all count if None.

        Returns
        -------
        (B, R, M), exactly 0 for an ROI without coverage or without variation
        """
        with torch.autocast(content_BRNE.device.type, enabled=False):
            content_BRNE = content_BRNE.float()
            if seen_BRN is not None:
                content_BRNE = content_BRNE * seen_BRN[..., None]
            flat_BRK = content_BRNE.flatten(2)
            norm_BR1 = torch.linalg.vector_norm(flat_BRK, dim=-1, keepdim=True)
            varies_BR1 = norm_BR1 > VARIES * norm_BR1.mean(dim=1, keepdim=True)
            # norms divide what is small, not another copy of all patches
            inverse_BR1 = torch.where(varies_BR1, 1 / norm_BR1.clamp_min(1e-30), 0.0)
            component_BMK = (self.components_RM * inverse_BR1).transpose(1, 2) @ flat_BRK
            component_BMK = F.normalize(component_BMK, dim=-1, eps=1e-6)
            return flat_BRK @ component_BMK.transpose(1, 2) * inverse_BR1

    def standardised(self, correlations_BRM: Tensor) -> Tensor:
        """Take off the runs' mean and divide by their spread, see `fit`; an ROI without variation stays 0."""
        varies_BR1 = correlations_BRM.ne(0).any(dim=-1, keepdim=True)
        return (correlations_BRM - self.mean_RM) / self.spread * varies_BR1

    @torch.no_grad()
    def fit(self, correlations_NRM: Tensor) -> None:
        """Take mean and spread over runs, so that the code is what differs between them.

        Parameters
        ----------
        correlations_NRM
            (runs, R, M) from `correlations`; of a single run, or copies of one, the spread stays 1.
        """
        varies_NR1 = correlations_NRM.ne(0).any(dim=-1, keepdim=True).float()
        count_R1 = varies_NR1.sum(dim=0).clamp_min(1)
        self.mean_RM.copy_(correlations_NRM.sum(dim=0) / count_R1)
        deviation_NRM = (correlations_NRM - self.mean_RM) * varies_NR1
        spread = (deviation_NRM.square().sum(dim=0) / count_R1).sqrt().mean()
        if spread > ALIKE:
            self.spread.copy_(spread)

    def forward(self, content_BRNE: Tensor, seen_BRN: Tensor | None = None) -> Tensor:
        """Return the code of patches as `correlations` takes them, standardised: (B, R, M)."""
        return self.standardised(self.correlations(content_BRNE, seen_BRN))


def whitening_loss(patches_BPK: Tensor, kernel_EK: Tensor, gain: float = 10.0) -> Tensor:
    """Return the negative log-determinant of the covariance of each sample's embedded patches, per channel.

    Smallest where all channels that there can be fluctuate alike and apart from each other. BOLD is slow, so patches
    have most of their power in few directions; a correlation of whitened patches has as many degrees of freedom as
    they have frames. It is the coding rate of Ma et al. 2007 (doi:10.1109/TPAMI.2007.1085), of channels whose mean
    variance is 1.

    Parameters
    ----------
    patches_BPK
        (B, P, K) patches of K frames.
    kernel_EK
        (E, K) what embeds them, without bias or position: the covariance is made of that of the frames, which are fewer
        than channels.
    gain
        How small a variance still counts: little is won below ``1 / gain`` of the mean.

    Returns
    -------
    (B,), NaN where a patch is not finite
    """
    with torch.autocast(patches_BPK.device.type, enabled=False):
        patches_BPK, kernel_EK = patches_BPK.float(), kernel_EK.float()
        covariance_BEE = kernel_EK @ (patches_BPK.transpose(1, 2) @ patches_BPK) @ kernel_EK.T
        mean_B = covariance_BEE.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-12)
        identity_EE = torch.eye(len(kernel_EK), device=kernel_EK.device)
        matrix_BEE = identity_EE + gain * covariance_BEE / mean_B[:, None, None]
        # unlike `cholesky` it neither raises where something is not finite nor waits for a GPU
        factor_BEE, failed_B = torch.linalg.cholesky_ex(matrix_BEE)
        loss_B = -2 * factor_BEE.diagonal(dim1=1, dim2=2).log().mean(dim=1)
        return torch.where(failed_B == 0, loss_B, torch.nan)
