"""Whole small scripts, each of a kind that people have: all that is said of them, line by line."""

from __future__ import annotations

import pytest

from tune_cropshield.check_script.checks import Judgement, check_source
from tune_cropshield.check_script.source import parse_source

STEP = "optimizer.step(); optimizer.zero_grad()\n"

# what it shows -> (script, all findings)
SCRIPTS: dict[str, tuple[str, list[tuple[int, str]]]] = {
    "both branches of a decision accumulate, each wrongly": (
        """
def train(model, loader, optimizer, criterion, scaler, k):
    optimizer.zero_grad()
    for step, (x, y) in enumerate(loader):
        if scaler is not None:
            with autocast("cuda"):
                loss = criterion(model(x), y)
            scaler.scale(loss).backward()
            if (step + 1) % k == 0:
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
        else:
            loss = criterion(model(x), y)
            loss.backward()
            if (step + 1) % k == 0:
                optimizer.step()
                optimizer.zero_grad()
""",
        [
            (8, "loss-not-divided"),
            (9, "last-window-dropped"),
            (15, "loss-not-divided"),
            (16, "last-window-dropped"),
        ],
    ),
    "only one branch divides": (
        """
for i, (x, y) in enumerate(loader):
    if args.fp16:
        loss = criterion(model(x), y) / k
        scaler.scale(loss).backward()
    else:
        loss = criterion(model(x), y)
        loss.backward()
    if (i + 1) % k == 0:
        if args.fp16:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        optimizer.zero_grad()
""",
        [(8, "loss-not-divided")],
    ),
    "one branch ends with continue": (
        """
for i, (x, y) in enumerate(loader):
    optimizer.zero_grad()
    if not amp:
        criterion(model(x), y).backward()
        optimizer.step()
        continue
    scaler.scale(criterion(model(x), y)).backward()
    clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
""",
        [(9, "clip-before-unscale")],
    ),
    "a branch for each of three precisions": (
        """
for x, y in loader:
    optimizer.zero_grad()
    loss = criterion(model(x), y)
    if precision == "fp16":
        scaler.scale(loss).backward()
        clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    elif precision == "bf16":
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    else:
        clip_grad_norm_(model.parameters(), 1.0)
        loss.backward()
        optimizer.step()
""",
        [(7, "clip-before-unscale"), (15, "clip-without-gradients")],
    ),
    "many conditions that have no part in the order": (
        """
def train(model, loader, optimizer, a, b, c, d, e, f, g, h, fp16=True, norm=None):
    if a: name = "x"
    if b: print(a)
    if c: c.start()
    if d: d = d or a
    if e: print(e)
    scaler = torch.amp.GradScaler("cuda") if fp16 else None
    for i, (x, y) in enumerate(loader):
        if a and i > a: break
        optimizer.zero_grad()
        if b: x = x.flip(-1)
        if fp16:
            scaler.scale(criterion(model(x), y)).backward()
            if norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), norm)
            scaler.step(optimizer)
            scaler.update()
        else:
            criterion(model(x), y).backward()
            optimizer.step()
        if c: c.last = i
        if d: print(i)
        if e and i > 3:
            if f: print(f)
            if g: continue
        if h: print(h)
""",
        [(16, "clip-before-unscale")],
    ),
    "a network that is an attribute": (
        """
class Learner:
    def epoch(self):
        for x, y in self.loader:
            self.optimizer.zero_grad()
            loss = self.loss_fn(self.backbone(x), y)
            torch.nn.utils.clip_grad_norm_(self.backbone.parameters(), 1.0)
            loss.backward()
            self.optimizer.step()
""",
        [(7, "clip-without-gradients")],
    ),
    "mixup's arithmetic is no division": (
        """
def mixed(criterion, out, a, b, share):
    return share * criterion(out, a) + (1 - share) * criterion(out, b)
for i, (x, y) in enumerate(loader):
    x, a, b, lam = mixup(x, y)
    loss = mixed(criterion, model(x), a, b, lam)
    loss.backward()
    if (i + 1) % k == 0 or i + 1 == len(loader):
        optimizer.step()
        optimizer.zero_grad()
""",
        [(7, "loss-not-divided")],
    ),
    "an added loss is no division, and a helper that divides is one": (
        """
def shared(loss, k):
    return loss / k
for i, (x, y) in enumerate(loader):
    loss = criterion(model(x), y) + 0.4 * aux_loss(x)
    loss.backward()
    if (i + 1) % k == 0 or i + 1 == len(loader):
        optimizer.step()
        optimizer.zero_grad()
for i, (x, y) in enumerate(loader):
    loss = shared(criterion(model(x), y), k)
    loss.backward()
    if (i + 1) % k == 0:
        optimizer.step()
        optimizer.zero_grad()
""",
        [(6, "loss-not-divided")],
    ),
    "a method called per batch belongs to the loop": (
        """
class Trainer:
    def one_batch(self, x, y):
        self.steps += 1
        loss = self.criterion(self.model(x), y)
        loss.backward()
        if self.steps % self.k == 0:
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.losses.append(loss.item())
    def epoch(self, loader):
        self.model.train()
        self.optimizer.zero_grad()
        for x, y in loader:
            self.one_batch(x, y)
""",
        [(6, "loss-not-divided"), (7, "last-window-dropped"), (10, "item-in-loop")],
    ),
    "functions that call functions per batch": (
        """
def update(opt, i):
    if (i + 1) % 4 == 0:
        opt.step()
        opt.zero_grad()
def on_batch(net, batch, opt, i):
    x, y = batch
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    update(opt, i)
    return float(loss)
def run(net, sgd, loader):
    sgd.zero_grad()
    for i, batch in enumerate(loader):
        shown = on_batch(net, batch, sgd, i)
""",
        [(3, "last-window-dropped"), (9, "loss-not-divided"), (11, "item-in-loop")],
    ),
    "an object of a class of the script": (
        """
class Loop:
    def __init__(self, model): self.model = model
    def batch(self, x, y):
        self.scaler.scale(self.criterion(self.model(x), y)).backward()
        clip_grad_norm_(self.model.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
loop = Loop(model)
for x, y in loader:
    loop.batch(x, y)
""",
        [(6, "clip-before-unscale")],
    ),
    "a counter in place of a remainder": (
        """
optimizer.zero_grad()
for x, y in loader:
    loss = criterion(model(x), y)
    loss.backward()
    count += 1
    if count == k:
        optimizer.step()
        optimizer.zero_grad()
        count = 0
""",
        [(5, "loss-not-divided"), (7, "last-window-dropped")],
    ),
    "reading tensors, and what is none": (
        """
def hits(out, y):
    return (out.argmax(1) == y).sum().item()
for i, (x, y) in enumerate(loader):
    flip, share = torch.rand(1).item() > 0.5, np.random.beta(1, 1).item()
    x = x.to(device)
    classes = y.unique().tolist()
    optimizer.zero_grad()
    out = model(x)
    loss = criterion(out, y.to(device))
    if amp:
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        seen.append(loss.detach().cpu())
    else:
        loss.backward()
        optimizer.step()
        seen.append(float(loss))
    right += hits(out, y)
    guessed = out.argmax(1).cpu().numpy()
    batch, number = int(out.size(0)), float(i)
    if i % 50 == 0:
        print(loss.item())
""",
        [(3, "item-in-loop"), (15, "item-in-loop"), (19, "item-in-loop"), (21, "item-in-loop")],
    ),
    "means of batch means in every form": (
        """
def a(loader):
    total, steps = 0.0, 0
    for x, y in loader:
        loss = criterion(model(x), y); loss.backward(); optimizer.step(); optimizer.zero_grad()
        total = total + loss.detach(); steps += 1
    return total / max(1, steps)
def b(loader):
    total = 0.0
    for x, y in loader:
        loss = criterion(model(x), y); loss.backward(); optimizer.step(); optimizer.zero_grad()
        total += loss.detach() / len(loader)
    return total
def c(loader):
    for i, (x, y) in enumerate(tqdm(loader)):
        loss = criterion(model(x), y); loss.backward(); optimizer.step(); optimizer.zero_grad()
        total += loss.detach()
    total /= i + 1
    return total
def d(loader):
    losses = []
    for x, y in loader:
        loss = criterion(model(x), y); loss.backward(); optimizer.step(); optimizer.zero_grad()
        losses.append(loss.detach())
    return torch.stack(losses).mean(), sum(losses) / len(losses)
@torch.no_grad()
def validate(val_loader):
    model.eval()
    batches = len(val_loader)
    for x, y in val_loader:
        total += criterion(model(x), y)
    return total / batches
""",
        [
            (7, "mean-of-batch-means"),
            (12, "mean-of-batch-means"),
            (18, "mean-of-batch-means"),
            (25, "mean-of-batch-means"),
            (32, "mean-of-batch-means"),
        ],
    ),
    "evaluation over names made from a loader": (
        """
def validate(model, valid_loader):
    model.eval()
    bar = enumerate(tqdm(valid_loader))
    for i, (x, y) in bar:
        total += criterion(model(x), y).detach() * len(y)
def score(net, prefetched):
    net.eval()
    batches = iter(prefetched["val"])
    for x, y in batches:
        hits(net(x), y)
def evaluate(model, data_loader):
    model.eval()
    for x, y in data_loader:
        hits(model(x), y)
""",
        [(5, "evaluates-with-gradients"), (10, "evaluates-with-gradients"), (14, "evaluates-with-gradients")],
    ),
    "a function's loader is what it is called with": (
        """
def run(model, loader):
    for x, y in loader:
        hits(model(x), y)
with torch.no_grad():
    run(model, test_loader)
""",
        [(3, "evaluates-in-training-mode")],
    ),
    "gradients on or off by a condition": (
        """
for x, y in loader:
    optimizer.zero_grad()
    with torch.autocast("cuda") if scaler else torch.no_grad():
        loss = criterion(model(x), y)
    if scaler:
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    else:
        loss.backward()
        optimizer.step()
""",
        [(4, "trains-without-gradients")],
    ),
    "a match for each precision": (
        """
for i, (x, y) in enumerate(loader):
    loss = criterion(model(x), y)
    match precision:
        case "fp16":
            scaler.scale(loss).backward()
            clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer); scaler.update()
        case _:
            loss.backward()
            optimizer.step()
    optimizer.zero_grad()
""",
        [(7, "clip-before-unscale")],
    ),
    "a loss that is scaled on some ways only": (
        """
import torch
def train(model, loader, optimizer, criterion, use_amp, k):
    scaler = torch.amp.GradScaler("cuda", enabled=use_amp)
    optimizer.zero_grad()
    for step, (x, y) in enumerate(loader):
        loss = criterion(model(x), y)
        (scaler.scale(loss) if use_amp else loss).backward()
        if (step + 1) % k == 0:
            if use_amp:
                scaler.step(optimizer)
                scaler.update()
            else:
                optimizer.step()
            optimizer.zero_grad()
""",
        [(8, "loss-not-divided"), (9, "last-window-dropped")],
    ),
    "an object of a class in an attribute": (
        """
class Opt:
    def __init__(self, optimizer, scaler): self.optimizer, self.scaler = optimizer, scaler
    def step(self, loss, model):
        self.scaler.scale(loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
class Trainer:
    def __init__(self, model): 
        self.opt = Opt(opt, sc); self.model = model
    def epoch(self, loader):
        for x, y in loader:
            loss = self.criterion(self.model(x), y)
            self.opt.step(loss, self.model)
            self.total += loss.item()
""",
        [(6, "clip-before-unscale"), (17, "item-in-loop")],
    ),
    "phases over a dictionary of loaders": (
        """
def train_model(model, dataloaders, criterion, optimizer, num_epochs):
    for epoch in range(num_epochs):
        for phase in ['train', 'val']:
            model.train(phase == 'train')
            running_loss = 0.0
            for inputs, labels in dataloaders[phase]:
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == 'train'):
                    loss = criterion(model(inputs), labels)
                    if phase == 'train':
                        loss.backward()
                        optimizer.step()
                running_loss += loss.item()
            print(running_loss / len(dataloaders[phase]))
            print(running_loss / len(dataloaders[phase].dataset))
""",
        [(14, "item-in-loop"), (15, "mean-of-batch-means"), (16, "batch-means-over-samples")],
    ),
    "evaluation mode that is never left": (
        """
import torch
model = Net(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
for epoch in range(5):
    for x, y in train_loader:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        for x, y in val_loader:
            hits(model(x), y)
""",
        [(5, "trains-in-evaluation-mode")],
    ),
    "evaluation mode that only the beginning was without": (
        """
import torch
def main():
    model.train()
    for epoch in range(5):
        for x, y in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
        model.train(False)
        with torch.no_grad():
            for x, y in val_loader:
                hits(model(x), y)
""",
        [(6, "trains-in-evaluation-mode")],
    ),
    "gradients switched off for good": (
        """
for epoch in range(3):
    for x, y in loader:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
    torch.set_grad_enabled(False)
    model.eval()
    for x, y in val_loader: hits(model(x), y)
    model.train()
""",
        [(8, "trains-without-gradients")],
    ),
    "a whole epoch without gradients": (
        """
def train(model, loader):
    with torch.no_grad():
        for x, y in loader:
            optimizer.zero_grad()
            out = model(x)
            loss = criterion(out, y)
            loss.backward()
            optimizer.step()
""",
        [(3, "trains-without-gradients")],
    ),
    "an output without gradients": (
        """
for x, y in loader:
    with torch.no_grad():
        out = model(x)
    loss = criterion(out, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
""",
        [(3, "trains-without-gradients")],
    ),
    "gradients off by a named context": (
        """
ctx = torch.autocast("cuda") if amp else torch.no_grad()
for x, y in loader:
    with ctx:
        loss = criterion(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
""",
        [(4, "trains-without-gradients")],
    ),
    "a method that makes a scaler per epoch": (
        """
class T:
    def train_epoch(self):
        self.scaler = torch.cuda.amp.GradScaler()
        for x, y in self.loader:
            self.optimizer.zero_grad()
            self.scaler.scale(self.criterion(self.model(x), y)).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
    def fit(self):
        for e in range(10): self.train_epoch()
""",
        [(4, "deprecated-cuda-amp"), (4, "new-scaler-per-epoch")],
    ),
    "a scaler per batch": (
        """
for epoch in range(3):
    for x, y in loader:
        scaler = torch.amp.GradScaler("cuda")
        optimizer.zero_grad()
        scaler.scale(criterion(model(x), y)).backward()
        scaler.step(optimizer)
        scaler.update()
""",
        [(4, "new-scaler-per-epoch")],
    ),
    "evaluation by a prefetcher": (
        """
def validate(model, valid_loader):
    model.eval()
    prefetcher = DataPrefetcher(valid_loader)
    x, y = prefetcher.next()
    while x is not None:
        hits(model(x), y)
        x, y = prefetcher.next()
""",
        [(6, "evaluates-with-gradients")],
    ),
    "evaluation by next()": (
        """
def validate(model, val_loader):
    model.eval()
    it = iter(val_loader)
    for i in range(len(val_loader)):
        x, y = next(it)
        hits(model(x), y)
""",
        [(5, "evaluates-with-gradients")],
    ),
    "evaluation in a comprehension": (
        """
def validate(model, val_loader):
    model.eval()
    return sum((model(x).argmax(1) == y).sum() for x, y in val_loader)
""",
        [(4, "evaluates-with-gradients")],
    ),
    "a meter that is not told the number of samples": (
        """
losses = AverageMeter()
for x, y in loader:
    loss = criterion(model(x), y)
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    losses.update(loss.detach())
""",
        [(6, "mean-of-batch-means")],
    ),
    "batch means in a dictionary": (
        """
for x, y in loader:
    loss = criterion(model(x), y)
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    stats["loss"] += loss.detach()
print(stats["loss"] / len(loader))
""",
        [(6, "mean-of-batch-means")],
    ),
    "numbers of batches and samples under names": (
        """
num_batches = len(dataloader)
size = len(dataloader.dataset)
test_loss, correct = 0, 0
model.eval()
with torch.no_grad():
    for X, y in dataloader:
        pred = model(X)
        test_loss += loss_fn(pred, y).item()
        correct += (pred.argmax(1) == y).type(torch.float).sum().item()
test_loss /= num_batches
correct /= size
""",
        [(11, "mean-of-batch-means")],
    ),
    "a distillation's arithmetic": (
        """
for i, (x, y) in enumerate(loader):
    loss = alpha * criterion(model(x), y) + (1 - alpha) * kd(model(x), teacher(x)) * T * T
    loss.backward()
    if (i + 1) % k == 0 or i + 1 == n:
        optimizer.step()
        optimizer.zero_grad()
""",
        [(4, "loss-not-divided")],
    ),
    "mixup in both branches": (
        """
for i, (x, y) in enumerate(loader):
    out = model(x)
    loss = lam * criterion(out, ya) + (1. - lam) * criterion(out, yb)
    if amp:
        scaler.scale(loss).backward()
    else:
        loss.backward()
    if (i + 1) % k == 0 or i + 1 == n:
        if amp:
            scaler.step(optimizer); scaler.update()
        else:
            optimizer.step()
        optimizer.zero_grad()
""",
        [(6, "loss-not-divided"), (8, "loss-not-divided")],
    ),
    "scalars on the CPU": (
        """
for x, y in loader:
    lam = torch.distributions.Beta(1.0, 1.0).sample().item()
    j = torch.randint(0, 4, (1,)).item()
    if torch.rand(1).item() < 0.5: x = x.flip(-1)
    k = random.choice(range(3))
    perm = torch.randperm(len(x))
    idx = perm[0].item()
    t = torch.tensor(0.3).item()
    w = np.random.rand(1).item()
    optimizer.zero_grad(); loss = criterion(model(x), y); loss.backward(); optimizer.step()
""",
        [],
    ),
    "random numbers on the GPU": (
        """
for x, y in loader:
    j = torch.rand(1, device="cuda").item()
    z = torch.rand(1).cuda().item()
    optimizer.zero_grad(); loss = criterion(model(x), y); loss.backward(); optimizer.step()
""",
        [(3, "item-in-loop"), (4, "item-in-loop")],
    ),
    "tensors read in other ways": (
        """
for x, y in loader:
    optimizer.zero_grad(); loss = criterion(model(x), y); loss.backward(); optimizer.step()
    print(f"loss {loss:.3f}")
    bar.set_postfix(loss=float(loss.detach()))
    history.append(loss.detach().cpu().numpy())
    a = int((model(x).argmax(1) == y).sum())
    b = loss.tolist()
    if loss > 10: break
""",
        [(5, "item-in-loop"), (6, "item-in-loop"), (7, "item-in-loop"), (8, "item-in-loop")],
    ),
    "a function inside a function": (
        """
def main():
    scaler = torch.amp.GradScaler("cuda")
    def step(x, y):
        loss = criterion(model(x), y)
        scaler.scale(loss).backward()
        clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return loss.item()
    for x, y in loader:
        total = step(x, y)
main()
""",
        [(7, "clip-before-unscale"), (11, "item-in-loop")],
    ),
    "a function that returns early": (
        """
def train_step(model, x, y, opt, scaler):
    opt.zero_grad()
    loss = criterion(model(x), y)
    if scaler is None:
        loss.backward()
        opt.step()
        return loss
    scaler.scale(loss).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(opt)
    scaler.update()
    return loss
for x, y in loader:
    train_step(model, x, y, optimizer, scaler)
""",
        [(10, "clip-before-unscale")],
    ),
    "a negated condition": (
        """
for x, y in loader:
    optimizer.zero_grad()
    loss = criterion(model(x), y)
    if not cfg.amp.enabled:
        clip_grad_norm_(model.parameters(), 1.0)
        loss.backward()
        optimizer.step()
    else:
        scaler.scale(loss).backward()
        optimizer.step()
        scaler.update()
""",
        [(6, "clip-without-gradients"), (11, "steps-with-scaled-gradients")],
    ),
    "gradients cleared in both branches' windows": (
        """
for i, (x, y) in enumerate(loader):
    optimizer.zero_grad()
    if fp16:
        with autocast("cuda"):
            loss = criterion(model(x), y) / k
        scaler.scale(loss).backward()
        if (i + 1) % k == 0:
            scaler.step(optimizer); scaler.update()
    else:
        loss = criterion(model(x), y) / k
        loss.backward()
        if (i + 1) % k == 0:
            optimizer.step()
""",
        [(3, "zero-grad-in-window")],
    ),
    "a match in which both cases accumulate": (
        """
for i, (x, y) in enumerate(loader):
    match precision:
        case "fp16":
            scaler.scale(criterion(model(x), y)).backward()
            if (i + 1) % k == 0:
                scaler.step(optimizer); scaler.update(); optimizer.zero_grad()
        case "fp32":
            criterion(model(x), y).backward()
            if (i + 1) % k == 0:
                optimizer.step(); optimizer.zero_grad()
""",
        [(5, "loss-not-divided"), (9, "loss-not-divided")],
    ),
    "means of lists": (
        """
def e(loader):
    for x, y in loader:
        loss = criterion(model(x), y); loss.backward(); optimizer.step(); optimizer.zero_grad()
        losses.append(loss.detach())
    a = np.mean(np.array(losses))
    b = torch.mean(torch.stack(losses))
    c = statistics.mean(losses)
    d = np.array(losses).mean()
    f = sum(losses) / len(loader)
    g = np.mean(losses[-10:])
""",
        [
            (6, "mean-of-batch-means"),
            (7, "mean-of-batch-means"),
            (8, "mean-of-batch-means"),
            (9, "mean-of-batch-means"),
            (10, "mean-of-batch-means"),
        ],
    ),
    "tensors read by functions": (
        """
for x, y in loader:
    loss = criterion(model(x), y)
    if math.isnan(loss): break
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    a = loss.to("cpu")
    b = np.asarray(loss.detach())
    c = bool(loss)
    d = loss.to(device)
""",
        [(4, "item-in-loop"), (6, "item-in-loop"), (8, "item-in-loop")],
    ),
    "adversarial examples on test data": (
        """
def test(model, test_loader):
    model.eval()
    for x, y in test_loader:
        x.requires_grad = True
        loss = F.nll_loss(model(x), y)
        model.zero_grad()
        loss.backward()
""",
        [],
    ),
    "predictions": (
        """
def predict(model, loader):
    out = []
    for x in loader:
        out.append(model(x))
    return out
""",
        [(4, "evaluates-in-training-mode"), (4, "evaluates-with-gradients")],
    ),
    "an evaluation that calls a function with a loop": (
        """
def accuracy(out, y, topk=(1, 5)):
    return [hit(out, y, k) / len(y) for k in topk if k] and top(out) / 2
def topk(out, y):
    for k in (1, 5):
        yield_one(out, y, k)
    return out.sum() / 2
def validate(val_loader, model, criterion):
    model.eval()
    for x, y in val_loader:
        err = topk(model(x), y)
def main():
    validate(loaders["val"], network, criterion)
""",
        [(10, "evaluates-with-gradients")],
    ),
    "a branch of its own for TPUs": (
        """
class Engine:
    def train(self, loader):
        for i, data in enumerate(loader):
            loss = self.model_fn(data, self.device, self.model) / self.k
            if not self.use_tpu:
                if self.fp16:
                    self.scaler.scale(loss).backward()
                else:
                    loss.backward()
                if (i + 1) % self.k == 0:
                    if self.fp16:
                        self.scaler.step(self.optimizer)
                        self.scaler.update()
                    else:
                        self.optimizer.step()
                    self.optimizer.zero_grad()
            else:
                loss.backward()
                xm.optimizer_step(self.optimizer)
                self.optimizer.zero_grad()
""",
        [],
    ),
    "a meter of the loss scale, and a tensor on the CPU": (
        """
scaler_meter = AverageMeter()
for x, y in loader:
    optimizer.zero_grad()
    loss = criterion(model(x), y)
    loss.backward()
    optimizer.step()
    loss_scale_value = 1.0
    scaler_meter.update(loss_scale_value)
    history.append(loss.data.numpy())
""",
        [],
    ),
    "a trainer with a method for each step, run at the end": (
        """
import torch
from torch.cuda.amp import GradScaler, autocast

class Trainer:
    def __init__(self, cfg):
        self.cfg = cfg
        self.net = build(cfg)
        self.opt = torch.optim.AdamW(self.net.parameters(), lr=cfg.lr)
        self.scaler = GradScaler() if cfg.amp else None

    def _forward(self, batch):
        x, y = batch["image"].cuda(), batch["label"].cuda()
        with autocast(enabled=self.cfg.amp):
            logits = self.net(x)
            loss = self.criterion(logits, y)
        return loss, logits, y

    def _backward(self, loss):
        if self.scaler is not None:
            self.scaler.scale(loss).backward()
        else:
            loss.backward()

    def _step(self):
        if self.scaler is not None:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.scaler.step(self.opt)
            self.scaler.update()
        else:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.opt.step()
        self.opt.zero_grad()

    def train_epoch(self, loader):
        self.net.train()
        self.opt.zero_grad()
        running = 0
        for i, batch in enumerate(loader):
            loss, logits, y = self._forward(batch)
            self._backward(loss)
            if (i + 1) % self.cfg.accum == 0:
                self._step()
            running += loss.item()
        return running / len(loader)

    def validate(self, loader):
        self.net.eval()
        losses = []
        for batch in loader:
            loss, logits, y = self._forward(batch)
            losses.append(loss.item())
        return sum(losses) / len(losses)

    def fit(self, train_loader, val_loader):
        for epoch in range(self.cfg.epochs):
            print(self.train_epoch(train_loader), self.validate(val_loader))

Trainer(cfg).fit(a, b)
""",
        [
            (3, "deprecated-cuda-amp"),
            (21, "loss-not-divided"),
            (23, "loss-not-divided"),
            (27, "clip-before-unscale"),
            (42, "last-window-dropped"),
            (44, "item-in-loop"),
            (45, "mean-of-batch-means"),
            (50, "evaluates-with-gradients"),
            (53, "mean-of-batch-means"),
        ],
    ),
    "a loss without gradients from a function": (
        """
@torch.no_grad()
def forward(model, x, y):
    return criterion(model(x), y)
for x, y in loader:
    loss = forward(net, x, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
""",
        [(2, "trains-without-gradients")],
    ),
    "another framework's loop is not judged by PyTorch's rules": (
        """
import tensorflow as tf
for x, y in val_loader:
    hits(model(x), y)
""",
        [],
    ),
}


def judged(script: str) -> Judgement:
    return check_source(parse_source(script, "train.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_all_that_is_said_of_a_script_is_right(name: str) -> None:
    script, expected = SCRIPTS[name]

    told = judged(script)

    assert [(each.line, each.rule) for each in told.findings] == expected
    assert told.unjudged == ()


def test_a_function_with_too_many_ways_through_it_is_named_and_the_rest_is_judged() -> None:
    ways = "".join(
        f"        if c{n}: optimizer_{n}.step()\n        if d{n}: clip_grad_norm_(p{n}, 1)\n" for n in range(12)
    )
    told = judged(
        "def train(model, loader):\n    for x, y in loader:\n        criterion(model(x), y).backward()\n"
        + ways
        + "def other(loader):\n    for x, y in loader:\n        clip_grad_norm_(net.parameters(), 1)\n"
        "        criterion(net(x), y).backward()\n        optimizer.step()\n        optimizer.zero_grad()\n"
    )

    assert told.unjudged == ((1, "train, too many ways through it"),)
    assert [(each.line, each.rule) for each in told.findings] == [(30, "clip-without-gradients")]


NO_LOOP = "no PyTorch training loop found"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("import tensorflow as tf\nmodel.fit(leaves, epochs=3)\n", f"{NO_LOOP} (Keras would train here)"),
        ("from keras import layers\n", f"{NO_LOOP} (Keras would train here)"),
        ("import lightning as L\n", f"{NO_LOOP} (Lightning would train here)"),
        ("from pytorch_lightning import Trainer\n", f"{NO_LOOP} (Lightning would train here)"),
        ("from fastai.vision.all import *\n", f"{NO_LOOP} (fastai would train here)"),
        ("from transformers import Trainer\n", f"{NO_LOOP} (the Hugging Face Trainer would train here)"),
        ("import torch\nprint(torch.__version__)\n", NO_LOOP),
        ("", NO_LOOP),
        ("import transformers\nfor x in loader:\n    model(x).loss.backward()\n    optimizer.step()\n", ""),
        ("accelerator.backward(loss)\n", ""),
    ],
)
def test_a_script_without_a_training_loop_is_told_so_with_who_trains_in_its_place(script: str, why: str) -> None:
    assert judged(script).no_loop == why
