"""Loops as the documentation of PyTorch, torchvision, Accelerate and others writes them, in our words: nothing in them
is to be found fault with.
"""

from __future__ import annotations

GOOD_LOOPS = {
    "plain": """
for epoch in range(epochs):
    model.train()
    for x, y in loader:
        x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
        loss = criterion(model(x), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    scheduler.step()
""",
    "mixed precision, accumulation and clipping": """
import torch
scaler = torch.amp.GradScaler("cuda")
for epoch in epochs:
    for i, (input, target) in enumerate(data):
        with torch.autocast(device_type="cuda", dtype=torch.float16):
            output = model(input)
            loss = loss_fn(output, target)
            loss = loss / iters_to_accumulate
        scaler.scale(loss).backward()
        if (i + 1) % iters_to_accumulate == 0:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=max_norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
""",
    "mixed precision that can be switched off": """
import torch
scaler = torch.amp.GradScaler("cuda", enabled=use_amp)
for input, target in zip(data, targets):
    with torch.autocast(device_type=device, dtype=torch.float16, enabled=use_amp):
        loss = loss_fn(net(input), target)
    scaler.scale(loss).backward()
    scaler.unscale_(opt)
    torch.nn.utils.clip_grad_norm_(net.parameters(), max_norm=0.1)
    scaler.step(opt)
    scaler.update()
    opt.zero_grad()
""",
    "a function with and without a scaler": """
def train_one_epoch(model, criterion, optimizer, data_loader, device, epoch, args, scaler=None):
    model.train()
    for i, (image, target) in enumerate(metric_logger.log_every(data_loader, args.print_freq, header)):
        image, target = image.to(device), target.to(device)
        with torch.amp.autocast("cuda", enabled=scaler is not None):
            loss = criterion(model(image), target)
        optimizer.zero_grad()
        if scaler is not None:
            scaler.scale(loss).backward()
            if args.clip_grad_norm is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), args.clip_grad_norm)
            scaler.step(optimizer)
            scaler.update()
        else:
            loss.backward()
            if args.clip_grad_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), args.clip_grad_norm)
            optimizer.step()

def evaluate(model, criterion, val_loader):
    model.eval()
    with torch.inference_mode():
        for image, target in val_loader:
            loss = criterion(model(image), target)
""",
    "micro-steps in an inner loop": """
while True:
    optimizer.zero_grad(set_to_none=True)
    for micro_step in range(gradient_accumulation_steps):
        with ctx:
            logits, loss = model(X, Y)
            loss = loss / gradient_accumulation_steps
        X, Y = get_batch("train")
        scaler.scale(loss).backward()
    if grad_clip != 0.0:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    scaler.step(optimizer)
    scaler.update()
    if iter_num % log_interval == 0:
        print(loss.item() * gradient_accumulation_steps)
""",
    "accelerate": """
for batch in train_dataloader:
    with accelerator.accumulate(model):
        loss = loss_function(model(batch["x"]), batch["y"])
        accelerator.backward(loss)
        if accelerator.sync_gradients:
            accelerator.clip_grad_norm_(model.parameters(), max_grad_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
""",
    "two networks in turns": """
scaler = torch.amp.GradScaler("cuda")
for i, real in enumerate(loader):
    optimizer_d.zero_grad()
    loss_d = d_loss(real, generator(z).detach())
    scaler.scale(loss_d).backward()
    scaler.unscale_(optimizer_d)
    torch.nn.utils.clip_grad_norm_(discriminator.parameters(), 1.0)
    scaler.step(optimizer_d)
    if i % n_critic == 0:
        optimizer_g.zero_grad()
        loss_g = g_loss(generator(z))
        scaler.scale(loss_g).backward()
        scaler.unscale_(optimizer_g)
        torch.nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
        scaler.step(optimizer_g)
    scaler.update()
""",
    "a class that does each step in a method": """
class Trainer:
    def backward(self, loss):
        self.scaler.scale(loss).backward()

    def step(self):
        self.scaler.unscale_(self.optimizer)
        self.norm = clip_grad_norm_(self.model.parameters(), self.max_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def train(self, windows):
        for window in windows:
            for x, y in window.micro_batches:
                self.backward(self.loss_sum(self.model(x), y) / window.weight)
            self.step()
            self.scheduler.step()
""",
    "an exact window": """
criterion = nn.CrossEntropyLoss(weight=class_weights, reduction="sum", label_smoothing=0.1)
for epoch in range(epochs):
    for window in windows(loader, k):
        weight = sum(class_weights[y].sum() for _, y in window)
        for x, y in window:
            (criterion(model(x), y) / weight).backward()
        norm = clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
""",
    "a learner that clips only when asked, twice conditioned": """
for i, (x, y) in enumerate(loader):
    with autocast("cuda"):
        loss = criterion(model(x), y)
    if fp16:
        scaler.scale(loss).backward()
    else:
        loss.backward()
    if clip and fp16:
        scaler.unscale_(optimizer)
    if clip:
        clip_grad_norm_(model.parameters(), clip)
    if fp16:
        scaler.step(optimizer)
        scaler.update()
    else:
        optimizer.step()
    optimizer.zero_grad()
""",
}
