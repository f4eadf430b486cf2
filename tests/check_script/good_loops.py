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
    "a scaler of one's own": """
class NativeScaler:
    def __init__(self): self._scaler = torch.amp.GradScaler("cuda")
    def __call__(self, loss, optimizer, clip_grad=None, parameters=None, need_update=True):
        self._scaler.scale(loss).backward()
        if need_update:
            if clip_grad is not None:
                self._scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(parameters, clip_grad)
            self._scaler.step(optimizer)
            self._scaler.update()
def train_one_epoch(model, criterion, data_loader, optimizer, loss_scaler, update_freq):
    model.train(True)
    optimizer.zero_grad()
    for i, (x, y) in enumerate(data_loader):
        loss = criterion(model(x), y) / update_freq
        due = (i + 1) % update_freq == 0
        loss_scaler(loss, optimizer, clip_grad=1.0, parameters=model.parameters(), need_update=due)
        if (i + 1) % update_freq == 0:
            optimizer.zero_grad()
""",
    "evaluation inside the training loop, and back": """
@torch.no_grad()
def evaluate(model, loader):
    model.eval()
    hits = seen = 0
    for x, y in loader:
        hits += (model(x).argmax(1) == y).sum()
        seen += y.size(0)
    model.train()
    return hits / seen
for i, (x, y) in enumerate(train_loader):
    optimizer.zero_grad()
    loss = criterion(model(x), y)
    loss.backward()
    optimizer.step()
    if i % 1000 == 0:
        print(evaluate(model, val_loader))
""",
    "a mode that is restored": """
def evaluate(model, loader):
    was = model.training
    model.eval()
    with torch.inference_mode():
        for x, y in loader:
            hits(model(x), y)
    model.train(was)
def fit(model):
    for epoch in range(9):
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
        evaluate(model, val_loader)
""",
    "two networks in turns, a method each": """
class GAN:
    def step_d(self, real):
        self.opt_d.zero_grad()
        loss = self.d_loss(self.D(real), self.D(self.G(self.z()).detach()))
        loss.backward()
        self.opt_d.step()
        return loss.detach()
    def step_g(self):
        self.opt_g.zero_grad()
        loss = self.g_loss(self.D(self.G(self.z())))
        loss.backward()
        self.opt_g.step()
        return loss.detach()
    def fit(self, loader):
        for i, x in enumerate(loader):
            d = self.step_d(x)
            if (i + 1) % 5 == 0:
                g = self.step_g()
""",
    "clipping in a method of its own": """
class Trainer:
    def optimize(self, loss):
        self.optimizer.zero_grad(set_to_none=True)
        if self.scaler is not None:
            self.scaler.scale(loss).backward()
            self._clip()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            loss.backward()
            self._clip()
            self.optimizer.step()
    def _clip(self):
        if self.max_norm:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
    def run(self):
        for epoch in range(3):
            self.model.train()
            for x, y in self.loader:
                self.optimize(self.criterion(self.model(x), y))
            self.model.eval()
            self.validate()
    @torch.no_grad()
    def validate(self):
        for x, y in self.val_loader:
            hits(self.model(x), y)
""",
    "fabric": """
for i, batch in enumerate(loader):
    is_accumulating = (i + 1) % k != 0
    with fabric.no_backward_sync(model, enabled=is_accumulating):
        loss = model(batch)
        fabric.backward(loss / k)
    if not is_accumulating:
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
""",
    "deepspeed": """
for batch in loader:
    loss = engine(batch)
    engine.backward(loss)
    engine.step()
""",
    "a scaler for each fold": """
def train_fold(fold):
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters())
    scaler = torch.amp.GradScaler("cuda")
    for epoch in range(9):
        model.train()
        for x, y in loaders[fold]:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda"):
                loss = criterion(model(x), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
for fold in range(5):
    train_fold(fold)
""",
    "distillation": """
for x, y in loader:
    with torch.no_grad():
        t = teacher(x)
    s = student(x)
    loss = kd_loss(s, t)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
""",
    "a frozen backbone": """
for x, y in loader:
    with torch.no_grad():
        f = backbone(x)
    loss = criterion(head(f), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
""",
    "adversarial examples": """
def fgsm(model, x, y):
    x.requires_grad_(True)
    loss = criterion(model(x), y)
    loss.backward()
    return x + 0.1 * x.grad.sign()
for x, y in loader:
    x = fgsm(model, x, y)
    optimizer.zero_grad()
    criterion(model(x), y).backward()
    optimizer.step()
""",
    "a closure": """
for x, y in loader:
    def closure():
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        return loss
    optimizer.step(closure)
""",
    "means over samples": """
def epoch(model, loader):
    total, n = 0.0, 0
    for x, y in loader:
        bs = y.shape[0]
        loss = criterion(model(x), y)
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        total += loss.detach() * bs
        n += bs
    return total / n
def other(model, loader):
    m = AverageMeter()
    for x, y in loader:
        loss = criterion(model(x), y)
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        m.update(loss.detach(), x.size(0))
""",
    "evaluation first": """
for epoch in range(9):
    model.eval()
    with torch.no_grad():
        for x, y in val_loader: hits(model(x), y)
    model.train()
    for x, y in loader:
        optimizer.zero_grad(); loss = criterion(model(x), y); loss.backward(); optimizer.step()
""",
    "functions called in main": """
def main(args):
    scaler = torch.amp.GradScaler("cuda") if args.amp else None
    for epoch in range(args.epochs):
        train_one_epoch(model, criterion, optimizer, loader, device, epoch, args, None, scaler)
        lr_scheduler.step()
        evaluate(model, criterion, test_loader, device=device)
def train_one_epoch(model, criterion, optimizer, data_loader, device, epoch, args, model_ema=None, scaler=None):
    model.train()
    for i, (image, target) in enumerate(metric_logger.log_every(data_loader, args.print_freq, header)):
        image, target = image.to(device), target.to(device)
        with torch.amp.autocast("cuda", enabled=scaler is not None):
            output = model(image)
            loss = criterion(output, target)
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
        if model_ema and i % args.model_ema_steps == 0:
            model_ema.update_parameters(model)
def evaluate(model, criterion, data_loader, device, print_freq=100, log_suffix=""):
    model.eval()
    num = 0
    with torch.inference_mode():
        for image, target in metric_logger.log_every(data_loader, print_freq, header):
            output = model(image)
            loss = criterion(output, target)
            num += image.shape[0]
main(parse())
""",
    "reinforcement learning": """
for episode in range(1000):
    for t in range(100):
        action = policy(state).sample()
        state, reward, done, _ = env.step(action.item())
        rewards.append(reward)
    optimizer.zero_grad()
    loss = policy_loss(rewards)
    loss.backward()
    optimizer.step()
""",
    "a loss that is reduced over processes": """
for x, y in loader:
    loss = criterion(model(x), y)
    loss = reduce_loss(loss)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
""",
    "losses that are made of each other": """
for x, y in loader:
    first = loss_fn(second)
    second = loss_fn(first)
    optimizer.zero_grad()
    first.backward()
    optimizer.step()
""",
}
