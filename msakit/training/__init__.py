"""One visible training loop, the batches it eats, and the losses and schedules of the papers."""
