"""What an agent remembers: an LSTM between the body of a network and its heads.

An agent carries the hidden and the cell state side by side from one decision to the next, as
ML-Agents' ONNX files do. While acting the LSTM makes one step for every agent that is ready;
learning runs it over sequences of decisions that were made one after the other.

Letters: N agents ready now, B rows, Q sequences, T longest of these sequences, H features,
M memory size, W memory width: what an agent carries for actor and critic together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from trainer.config.behavior_settings import Initialization


@dataclass(frozen=True)
class Sequences:
    """Where sequences begin among B rows that lie end to end, and what was carried into them.

    Their lengths differ; only inside the LSTM are short ones padded, behind their end, so no loss
    and no statistic ever meets padding.
    """

    starts: Tensor  # (Q + 1,) int64 on the CPU, first 0, last B
    memory: Tensor  # (Q, W) what the agent carried before the first row
    sequence_length: int  # decisions that a sequence may have

    def __len__(self) -> int:
        return len(self.memory)

    @cached_property
    def lengths(self) -> Tensor:
        """(Q,) int64 on the CPU."""
        return self.starts.diff()

    @cached_property
    def longest(self) -> int:
        """T."""
        return int(self.lengths.max())

    @cached_property
    def places(self) -> Tensor:
        """(B,) where each row lies in a table of T x Q rows, all first rows before all second."""
        sequence = torch.repeat_interleave(self.lengths)  # (Q,) -> (B,)
        step = torch.arange(len(sequence)) - self.starts[sequence]
        return (step * len(self) + sequence).to(self.memory.device)


class Memory(nn.Module):
    """One layer of LSTM; half of `memory_size` is hidden state, which the heads read."""

    def __init__(self, num_inputs: int, memory_size: int, initialization: Initialization) -> None:
        """Draws the weights.

        Args:
            num_inputs: H, what the body gives.
            memory_size: M, an even number.
            initialization: `kaiming` draws each gate's weights by Xavier's rule and lets it keep
                what it has (both forget biases 1), as ML-Agents does; `orthogonal` is that of
                PPO's reference code for LSTMs, with biases of 0.
        """
        super().__init__()
        self.memory_size = memory_size
        self.num_features = memory_size // 2
        self.lstm = nn.LSTM(num_inputs, self.num_features)
        for name, parameter in self.lstm.named_parameters():
            # input, forget, cell, output
            gates = torch.split(parameter.detach(), self.num_features)
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
                if initialization == "kaiming":
                    nn.init.ones_(gates[1])
            elif initialization == "kaiming":
                for gate in gates:
                    nn.init.xavier_uniform_(gate)
            else:
                nn.init.orthogonal_(parameter)
        self._weights = tuple(self.lstm.parameters())  # of input, of hidden, and both biases

    def step(self, features: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Makes one decision's step.

        Args:
            features: (N, H).
            memory: (N, M), what the agents carry.

        Returns:
            What the heads read, (N, M / 2), and what the agents carry on, (N, M).
        """
        before = torch.split(memory, self.num_features, dim=1)  # (N, M) -> 2 x (N, M / 2)
        # A third of what nn.LSTM takes for one step.
        hidden, cell = torch.lstm_cell(features, before, *self._weights)
        return hidden, torch.cat([hidden, cell], dim=1)

    def unroll(self, features: Tensor, sequences: Sequences, memory: Tensor) -> Tensor:
        """Runs through whole sequences, with gradients back to their first rows.

        Args:
            features: (B, H) of the sequences' rows.
            sequences: Q of them.
            memory: (Q, M), what was carried into them for this LSTM.

        Returns:
            (B, M / 2), what the heads read.
        """
        steps, count = sequences.longest, len(sequences)
        padded = features.new_zeros(steps * count, features.shape[1])
        padded = padded.index_copy(0, sequences.places, features)  # (B, H) -> (T * Q, H)
        hidden, cell = torch.split(memory.unsqueeze(0), self.num_features, dim=2)
        read, _ = self.lstm(padded.view(steps, count, -1), (hidden.contiguous(), cell.contiguous()))
        flat: Tensor = read.reshape(steps * count, -1)
        return flat[sequences.places]  # (T * Q, M / 2) -> (B, M / 2)
