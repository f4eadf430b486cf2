"""Training-loop snippets: for each rule what breaks it, with the line, and what does not."""

from __future__ import annotations

LOOP = "for i, (x, y) in enumerate(loader):\n"
STEP_LOOP = (
    "\nfor x, y in loader:\n    out = model(x)\n    loss = criterion(out, y)\n    loss.backward()\n"
    "    optimizer.step(); optimizer.zero_grad()\n"
)

# rule -> [(line of the finding, script)]
WRONG: dict[str, list[tuple[int, str]]] = {
    "last-window-dropped": [
        (
            7,
            """
def train_one_epoch(model, loader, opt, k):
    opt.zero_grad()
    for i, (x, y) in enumerate(loader):
        loss = criterion(model(x), y) / k
        loss.backward()
        if (i + 1) % k == 0:
            opt.step()
            opt.zero_grad()
""",
        ),
        (
            8,
            """
class Trainer:
    def epoch(self):
        self.optimizer.zero_grad()
        for step, batch in enumerate(self.loader):
            loss = self.loss(self.model(batch.x), batch.y) / self.k
            loss.backward()
            if (step + 1) % self.k:
                continue
            self.optimizer.step()
            self.optimizer.zero_grad()
""",
        ),
        (
            8,
            """
for epoch in range(epochs):
    optimizer.zero_grad()
    for i, (x, y) in enumerate(loader):
        update = (i + 1) % 4 == 0
        loss = criterion(model(x), y) / 4
        loss.backward()
        if update:
            optimizer.step()
            optimizer.zero_grad()
""",
        ),
    ],
    "loss-not-divided": [
        (
            4,
            """
for i, (x, y) in enumerate(loader):
    loss = criterion(model(x), y)
    loss.backward()
    if (i + 1) % k == 0 or i + 1 == len(loader):
        optimizer.step()
        optimizer.zero_grad()
""",
        ),
        (
            7,
            """
for x, y in loader:
    loss = criterion(model(x), y)
    if use_amp:
        scaler.scale(loss / k).backward()
    else:
        loss.backward()
""",
        ),
    ],
    "ragged-window-mean": [
        (
            3,
            """
for i, (x, y) in enumerate(loader):
    loss = criterion(model(x), y) / k
    loss.backward()
    if (i + 1) % k == 0 or i + 1 == len(loader):
        optimizer.step()
        optimizer.zero_grad()
""",
        ),
        (
            4,
            """
for i, (x, y) in enumerate(loader):
    loss = criterion(model(x), y)
    loss /= k
    loss.backward()
    if (i + 1) % k == 0:
        optimizer.step()
        optimizer.zero_grad()
if (i + 1) % k != 0:
    optimizer.step()
""",
        ),
    ],
    "class-weights-mean": [
        (
            5,
            """
import torch.nn as nn
criterion = nn.CrossEntropyLoss(weight=weights)
for i, (x, y) in enumerate(loader):
    loss = criterion(model(x), y) / k
    loss.backward()
    if (i + 1) % k == 0:
        optimizer.step()
        optimizer.zero_grad()
""",
        )
    ],
    "zero-grad-in-window": [
        (
            3,
            """
for i, (x, y) in enumerate(loader):
    optimizer.zero_grad()
    loss = criterion(model(x), y) / k
    loss.backward()
    if (i + 1) % k == 0:
        optimizer.step()
""",
        ),
        (
            3,
            "\nfor x, y in window:\n    optimizer.zero_grad()\n    criterion(model(x), y).backward()\noptimizer.step()\n",
        ),
    ],
    "clip-per-micro-batch": [
        (
            6,
            """
from torch.nn.utils import clip_grad_norm_ as clip
for i, (x, y) in enumerate(loader):
    loss = criterion(model(x), y) / k
    loss.backward()
    clip(model.parameters(), 1.0)
    if (i + 1) % k == 0:
        optimizer.step()
        optimizer.zero_grad()
""",
        )
    ],
    "floored-accumulation": [(2, "\naccumulation_steps = max(1, target_batch // micro)\n")],
    "memory-formula": [(2, "\nbatch = int(vram_mb / mb_per_image)\n")],
    "micro-batch-below-16": [(2, "\ntrain(model, batch_size=8, accumulation_steps=4)\n")],
    "clip-before-unscale": [
        (
            6,
            """
import torch
for x, y in loader:
    optimizer.zero_grad()
    scaler.scale(criterion(model(x), y)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
""",
        ),
        (
            10,
            """
import torch.nn.utils as tools
from torch.amp import GradScaler
class Trainer:
    def __init__(self):
        self.amp = GradScaler("cuda")
    def step(self, batch):
        scaled = self.amp.scale(self.loss_of(batch))
        scaled.backward()
        tools.clip_grad_value_(self.net.parameters(), 0.5)
        self.amp.unscale_(self.opt)
        self.amp.step(self.opt)
        self.amp.update()
""",
        ),
        (2, "\nclip_grad_norm_(model.parameters(), 1.0)\nscaler.step(optimizer)\n"),
    ],
    "unscales-twice": [
        (
            4,
            """
scaler.scale(loss).backward()
scaler.unscale_(optimizer)
scaler.unscale_(optimizer)
scaler.step(optimizer)
""",
        ),
        (
            4,
            """
for i, (x, y) in enumerate(loader):
    scaler.scale(criterion(model(x), y) / k).backward()
    scaler.unscale_(optimizer)
    if (i + 1) % k == 0:
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
""",
        ),
    ],
    "clips-twice": [
        (
            4,
            """
loss.backward()
clip_grad_norm_(model.parameters(), 1.0)
clip_grad_value_(model.parameters(), 0.5)
optimizer.step()
""",
        )
    ],
    "clip-without-gradients": [
        (
            5,
            "\nfor x, y in loader:\n    criterion(model(x), y).backward()\n    optimizer.step()\n"
            "    clip_grad_norm_(net.parameters(), 1)\n    optimizer.zero_grad()\n",
        ),
        (
            3,
            "\noptimizer.zero_grad()\nclip_grad_norm_(net.parameters(), 1)\ncriterion(model(x), y).backward()\noptimizer.step()\n",
        ),
    ],
    "clip-argument": [
        (2, "\nclip_grad_value_(model.parameters(), max_norm)\n"),
        (2, "\nclip_grad_norm_(model.parameters(), clip_value=0.5)\n"),
    ],
    "loss-not-scaled": [
        (
            4,
            "\nfor x, y in loader:\n    loss = criterion(model(x), y)\n    loss.backward()\n"
            "    scaler.step(optimizer)\n    scaler.update()\n    optimizer.zero_grad()\n",
        )
    ],
    "steps-with-scaled-gradients": [(3, "\nscaler.scale(loss).backward()\noptimizer.step()\n")],
    "steps-twice": [
        (4, "\nscaler.scale(loss).backward()\nscaler.step(optimizer)\noptimizer.step()\nscaler.update()\n")
    ],
    "scaler-never-updated": [
        (
            4,
            "\nfor x, y in loader:\n    scaler.scale(criterion(model(x), y)).backward()\n    scaler.step(optimizer)\n    optimizer.zero_grad()\n",
        )
    ],
    "zero-grad-before-step": [(4, "\nloss.backward()\noptimizer.zero_grad()\noptimizer.step()\n")],
    "gradients-never-cleared": [
        (4, "\nfor x, y in loader:\n    criterion(model(x), y).backward()\n    optimizer.step()\n")
    ],
    "deprecated-cuda-amp": [
        (2, "\nfrom torch.cuda.amp import autocast, GradScaler\n"),
        (2, "\nimport torch.cuda.amp as amp\n"),
        (2, "\nfrom torch.cuda import amp\n"),
        (3, "\nimport torch\nscaler = torch.cuda.amp.GradScaler()\n"),
    ],
    "grad-may-be-none": [
        (2, "\nprint(max(p.grad.abs().max() for p in model.parameters()))\n"),
        (4, "\ntotal = 0.0\nfor name, weight in net.named_parameters():\n    total += weight.grad.norm() ** 2\n"),
        (7, STEP_LOOP + "    print(sum(p.grad.norm() for p in model.parameters()))\n"),
        (
            5,
            "\nfor p in model.features.parameters():\n    p.requires_grad = False\nloss.backward()\n"
            "print(max(p.grad.norm() for p in model.parameters()))\n",
        ),
    ],
    "plateau-without-metric": [
        (
            5,
            """
from torch.optim.lr_scheduler import ReduceLROnPlateau as Drop
lr = Drop(optimizer, patience=3)
for epoch in range(epochs):
    lr.step()
""",
        ),
        (
            4,
            """
def fit(model, schedule):
    train(model)
    schedule.step()

schedule = make_schedule("plateau")
fit(model, schedule)
""",
        ),
    ],
    "scheduler-per-micro-batch": [
        (
            8,
            """
for i, (x, y) in enumerate(loader):
    loss = criterion(model(x), y) / k
    loss.backward()
    if (i + 1) % k == 0:
        optimizer.step()
        optimizer.zero_grad()
    scheduler.step()
""",
        )
    ],
    "scheduler-on-skipped-update": [
        (
            7,
            """
for x, y in loader:
    optimizer.zero_grad()
    scaler.scale(criterion(model(x), y)).backward()
    scaler.step(optimizer)
    scaler.update()
    scheduler.step()
""",
        )
    ],
    "onecycle-per-epoch": [
        (
            9,
            """
import torch
cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, steps_per_epoch=len(loader), epochs=9)
for epoch in range(9):
    for x, y in loader:
        criterion(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    cycle.step()
""",
        )
    ],
    "onecycle-total-steps": [
        (
            3,
            """
from torch.optim.lr_scheduler import OneCycleLR
scheduler = OneCycleLR(optimizer, 0.1, steps_per_epoch=len(loader), epochs=9)
for i, (x, y) in enumerate(loader):
    loss = criterion(model(x), y) / k
    loss.backward()
    if (i + 1) % k == 0:
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
""",
        )
    ],
    "batch-means-over-samples": [
        (
            8,
            """
def epoch(loader):
    total = 0.0
    for x, y in loader:
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step(); optimizer.zero_grad(); total += loss.detach()
    return total / len(loader.dataset)
""",
        ),
        (
            8,
            """
def validate(model, val_loader):
    model.eval()
    total, seen = 0.0, 0
    with torch.no_grad():
        for x, y in val_loader:
            total += criterion(model(x), y).item(); seen += y.size(0)
    return total / seen
""",
        ),
        # samples by how they are counted
        (
            9,
            """
for x, y in loader:
    e = criterion(model(x), y)
    e.backward()
    optimizer.step(); optimizer.zero_grad()
    b = len(y)
    s += e.detach()
    seen += b
print(s / seen)
""",
        ),
    ],
    "trains-in-evaluation-mode": [
        (
            4,
            """
class Trainer:
    def train_epoch(self):
        for x, y in self.loader:
            loss = self.criterion(self.model(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
    def validate(self):
        self.model.eval()
        with torch.no_grad():
            return [self.model(x) for x in self.val_loader]
    def fit(self):
        self.model.train()
        for epoch in range(self.epochs):
            self.train_epoch()
            self.validate()
""",
        ),
        (
            6,
            """
def evaluate(net):
    net.eval()
    with torch.no_grad(): return accuracy(net(images), labels)
model.train()
for i, (x, y) in enumerate(loader):
    optimizer.zero_grad()
    criterion(model(x), y).backward()
    optimizer.step()
    if i % 500 == 0:
        evaluate(model)
""",
        ),
    ],
    "trains-without-gradients": [
        (
            3,
            """
for x, y in loader:
    with torch.no_grad():
        loss = criterion(model(x), y)
    loss.backward()
    optimizer.step(); optimizer.zero_grad()
""",
        ),
        (
            2,
            """
@torch.inference_mode()
def train_epoch(model, loader):
    for x, y in loader:
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step(); optimizer.zero_grad()
""",
        ),
        (
            5,
            """
def forward(x, y):
    return criterion(model(x), y)
for x, y in loader:
    with torch.set_grad_enabled(False):
        loss = forward(x, y)
    loss.backward()
    optimizer.step(); optimizer.zero_grad()
""",
        ),
        # switched off for good, before the loop
        (2, "\ntorch.set_grad_enabled(False)" + STEP_LOOP),
        (
            3,
            "\nimport torch\ntorch.autograd.set_grad_enabled(mode=False)"
            + STEP_LOOP
            + "torch.set_grad_enabled(True)\n",
        ),
        (2, "\ntorch.inference_mode().__enter__()" + STEP_LOOP),
        (2, "\n_ = torch.set_grad_enabled(False)" + STEP_LOOP),
        (3, "\noff = torch.no_grad()\noff.__enter__()" + STEP_LOOP),
    ],
    "new-scaler-per-epoch": [
        (
            3,
            """
for epoch in range(9):
    scaler = torch.amp.GradScaler("cuda")
    for x, y in loader:
        optimizer.zero_grad()
        scaler.scale(criterion(model(x), y)).backward()
        scaler.step(optimizer)
        scaler.update()
""",
        ),
        (
            4,
            """
from torch.amp import GradScaler
def train_one_epoch(model, loader, optimizer):
    scaler = GradScaler("cuda", enabled=True)
    for x, y in loader:
        optimizer.zero_grad()
        scaler.scale(criterion(model(x), y)).backward()
        scaler.step(optimizer)
        scaler.update()
""",
        ),
    ],
    "item-in-loop": [
        (
            6,
            """
for x, y in loader:
    loss = criterion(model(x), y)
    loss.backward()
    optimizer.step()
    seen += loss.item() * len(y)
    optimizer.zero_grad()
""",
        ),
        # a tensor's .float() is still on the GPU
        (7, STEP_LOOP + "    hits += (out.argmax(1) == y).float().mean().cpu().numpy()\n"),
        # an if that ends the loop does not make what follows rare
        (9, STEP_LOOP + "    if loss > 10:\n        break\n    outputs.append(out.cpu())\n"),
        # batches that are cut out of one tensor
        (
            7,
            """
for i in range(0, len(images), 32):
    x, y = images[i : i + 32], labels[i : i + 32]
    loss = criterion(model(x), y)
    loss.backward()
    optimizer.step(); optimizer.zero_grad()
    total += loss.item()
""",
        ),
        # a loop that counts, and reads its batches with next()
        (
            8,
            """
batches = iter(leaves)
for _ in range(len(leaves)):
    x, y = next(batches)
    loss = criterion(model(x), y)
    loss.backward()
    optimizer.step(); optimizer.zero_grad()
    total += loss.item()
""",
        ),
    ],
    "mean-of-batch-means": [
        (
            9,
            """
def epoch(loader):
    total = 0.0
    for x, y in tqdm(loader):
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step(); optimizer.zero_grad()
        total += loss.detach()
    return total / len(loader)
""",
        ),
        # a loss by where it comes from, whatever it is called
        (
            8,
            """
for x, y in loader:
    l = measure(model(x), y)
    l.backward()
    optimizer.step(); optimizer.zero_grad()
    kept = l.detach()
    s += kept
print(s / len(loader))
""",
        ),
        (
            6,
            """
for x, y in loader:
    e = criterion(model(x), y)
    scaler.scale(e).backward(); scaler.step(optimizer); scaler.update(); optimizer.zero_grad()
    s.append(e.item())
print(np.mean(s))
""",
        ),
        (
            7,
            """
ce = nn.CrossEntropyLoss()
with torch.no_grad():
    for x, y in val_loader:
        v = ce(model(x), y)
        s += v.item()
print(s / len(val_loader))
""",
        ),
        (
            9,
            """
def step(x, y):
    e = criterion(model(x), y)
    e.backward()
    optimizer.step(); optimizer.zero_grad()
    return e.detach()
for x, y in loader:
    s += step(x, y)
print(s / len(loader))
""",
        ),
        (
            5,
            """
for x, y in loader:
    right = (model(x).argmax(1) == y).float().mean()
    s += right.item()
print(s / len(loader))
""",
        ),
        # a loop that counts, and reads its batches with next()
        (
            8,
            """
batches = iter(leaves)
for i in range(steps):
    x, y = next(batches)
    loss = criterion(model(x), y)
    loss.backward(); optimizer.step(); optimizer.zero_grad()
    total += loss.detach()
print(total / steps)
""",
        ),
    ],
    "evaluates-with-gradients": [
        (4, "\ndef validate(model):\n    model.eval()\n    for x, y in val_loader:\n        hits(model(x), y)\n")
    ],
    "evaluates-in-training-mode": [
        (
            4,
            "\ndef validate(model):\n    with torch.no_grad():\n        for x, y in self.val_loader:\n            hits(model(x), y)\n",
        )
    ],
    "black-image": [
        (
            7,
            """
class Leaves(Dataset):
    def __getitem__(self, i):
        try:
            image = Image.open(self.paths[i]).convert("RGB")
        except Exception:
            image = Image.new("RGB", (224, 224))
        return self.transform(image), self.labels[i]
""",
        ),
        (
            5,
            """
def load(path, label):
    image = cv2.imread(path)
    if image is None:
        image = np.zeros((224, 224, 3), dtype=np.uint8)
    return image, label
""",
        ),
        (
            6,
            """
def load(path):
    try:
        return Image.open(path).convert("RGB")
    except OSError:
        return Image.new("RGB", (224, 224))
class Leaves(Dataset):
    def __getitem__(self, i):
        return self.transform(load(self.paths[i])), self.labels[i]
""",
        ),
    ],
    "argparse-bool": [(2, "\nparser.add_argument('--amp', type=bool, default=True)\n")],
    "scaler-does-not-clip": [(2, "\n# gradient clipping (implicit via AMP)\n")],
    "fp16-underflow": [(2, "\nloss.backward()  # gradient = 1e-7 -> underflows to 0\n")],
    "amp-on-cpu": [(2, "\n# AMP only works on CUDA GPUs\n")],
    "batch-norm-in-autocast": [
        (4, "\nwith autocast():\n    # these run in FP32\n    z = F.batch_norm(x, mean, var)\n")
    ],
}

# rule -> scripts that look like the wrong ones, and are right
RIGHT: dict[str, list[str]] = {
    "last-window-dropped": [
        # gradients are carried over into the next epoch, not dropped
        "optimizer.zero_grad()\nfor e in range(9):\n    for i, (x, y) in enumerate(loader):\n        (criterion(model(x), y) / k).backward()\n"
        "        if (i + 1) % k == 0:\n            optimizer.step()\n            optimizer.zero_grad()\n",
        # whole windows only, on purpose
        "optimizer.zero_grad()\nfor i, (x, y) in enumerate(islice(loader, len(loader) // k * k)):\n    (criterion(model(x), y) / k).backward()\n"
        "    if (i + 1) % k == 0:\n        optimizer.step()\n        optimizer.zero_grad()\n",
    ],
    "loss-not-divided": [
        # validation every 100 batches, no accumulation
        LOOP + "    loss = criterion(model(x), y)\n    loss.backward()\n    optimizer.step()\n"
        "    optimizer.zero_grad()\n    if i % 100 == 0:\n        log(i)\n",
        # the loss is made elsewhere and may be divided there
        LOOP + "    loss = loss_of(model(x), y, k)\n    loss.backward()\n    if (i + 1) % k == 0 or i + 1 == n:\n"
        "        optimizer.step()\n        optimizer.zero_grad()\n",
        # a GAN's two networks in turns
        LOOP
        + "    loss_d = d_loss(x)\n    loss_d.backward()\n    optimizer_d.step()\n    optimizer_d.zero_grad()\n    if i % 5 == 0:\n"
        "        loss_g = g_loss(x)\n        loss_g.backward()\n        optimizer_g.step()\n        optimizer_g.zero_grad()\n",
    ],
    "ragged-window-mean": [
        "criterion = nn.CrossEntropyLoss(reduction='sum')\n"
        + LOOP
        + "    loss = criterion(model(x), y) / window_samples\n    loss.backward()\n"
        "    if (i + 1) % k == 0 or i + 1 == n:\n        optimizer.step()\n        optimizer.zero_grad()\n"
    ],
    "zero-grad-in-window": [
        # Fisher information: gradients for their own sake
        "for x, y in loader:\n    model.zero_grad()\n    criterion(model(x), y).backward()\n    fisher += weight.grad ** 2\n",
        "for x, y in loader:\n    optimizer.zero_grad()\n    criterion(model(x), y).backward()\n    optimizer.step()\n",
    ],
    "floored-accumulation": [
        "assert target_batch % micro == 0\naccumulation_steps = target_batch // micro\n",
        "accumulation_steps = -(-target_batch // micro)\n",
    ],
    "micro-batch-below-16": [
        "config = {'batch_size': 8, 'accumulation_steps': 1}\n",
        "model = GroupNormNet()\nrun(batch_size=8, accumulation_steps=4)\n",
    ],
    "clip-before-unscale": [
        # two ways through, each right
        "for x, y in loader:\n    if use_amp:\n        scaler.scale(criterion(model(x), y)).backward()\n"
        "        scaler.unscale_(optimizer)\n    else:\n"
        "        criterion(model(x), y).backward()\n    if max_norm:\n        clip_grad_norm_(model.parameters(), max_norm)\n    if use_amp:\n"
        "        scaler.step(optimizer)\n        scaler.update()\n    else:\n        optimizer.step()\n    optimizer.zero_grad()\n",
        # the same under conditions that only a person knows to be one
        "for x, y in loader:\n    if use_amp:\n        scaler.scale(criterion(model(x), y)).backward()\n"
        "    else:\n        criterion(model(x), y).backward()\n"
        "    if scaler is not None:\n        scaler.unscale_(optimizer)\n    clip_grad_norm_(model.parameters(), 1)\n    if scaler is not None:\n"
        "        scaler.step(optimizer)\n        scaler.update()\n    else:\n        optimizer.step()\n    optimizer.zero_grad()\n",
        # a method of Accelerate, which unscales by itself
        "accelerator.backward(loss)\naccelerator.clip_grad_norm_(model.parameters(), 1.0)\noptimizer.step()\n",
    ],
    "unscales-twice": [
        "scaler.scale(a + b).backward()\nscaler.unscale_(opt_a)\nscaler.unscale_(opt_b)\nscaler.step(opt_a)\nscaler.step(opt_b)\nscaler.update()\n"
    ],
    "clips-twice": [
        "loss.backward()\nclip_grad_norm_(encoder.parameters(), 1)\nclip_grad_norm_(decoder.parameters(), 5)\noptimizer.step()\n"
    ],
    "clip-argument": [
        "clip_grad_norm_(model.parameters(), args.clip_norm, norm_type=2)\n",
        "clip_grad_value_(p, clip_value=0.5)\n",
        "clip_grad_norm_(p, clip_value)\n",
    ],
    "zero-grad-before-step": [
        "optimizer.zero_grad()\noptimizer.step()\n",  # makes the optimizer's state
        "optimizer.zero_grad()\naccelerator.backward(loss)\noptimizer.step()\n",
        "def closure():\n    optimizer.zero_grad()\n    loss.backward()\n    return loss\noptimizer.step(closure)\n",
    ],
    "steps-twice": ["loss.backward()\noptimizer.step() if plain else scaler.step(optimizer)\n"],
    "gradients-never-cleared": [
        "for x, y in loader:\n    for p in model.parameters():\n        p.grad = None\n    criterion(model(x), y).backward()\n    optimizer.step()\n"
    ],
    "deprecated-cuda-amp": ["from torch.amp import autocast, GradScaler\nscaler = GradScaler('cuda')\n"],
    "grad-may-be-none": [
        "max(p.grad.abs().max() for p in model.parameters() if p.grad is not None)\n",
        "for p in model.parameters():\n    if p.grad is not None:\n        p.grad.mul_(0.5)\n",
        # right after backward, and nothing is frozen
        "loss.backward()\nfor p in model.parameters():\n    p.grad.mul_(0.5)\n",
    ],
    "plateau-without-metric": [
        "scheduler = ReduceLROnPlateau(optimizer)\nscheduler.step(val_loss)\n",
        "scheduler = make('plateau')\nif isinstance(scheduler, ReduceLROnPlateau):\n    scheduler.step(val_loss)\nelse:\n    scheduler.step()\n",
    ],
    "scheduler-on-skipped-update": [
        "for x, y in loader:\n    optimizer.zero_grad()\n    scaler.scale(criterion(model(x), y)).backward()\n    scaler.step(optimizer)\n"
        "    scale = scaler.get_scale()\n    scaler.update()\n    if scaler.get_scale() >= scale:\n        scheduler.step()\n",
        "for e in range(9):\n    for x, y in loader:\n        optimizer.zero_grad()\n        scaler.scale(criterion(model(x), y)).backward()\n"
        "        scaler.step(optimizer)\n        scaler.update()\n    scheduler.step()\n",
    ],
    "item-in-loop": [
        LOOP + "    loss = criterion(model(x), y)\n    loss.backward()\n    optimizer.step()\n"
        "    optimizer.zero_grad()\n    if i % 100 == 0:\n        print(loss.item())\n",
        "for epoch in range(100):\n    loss = criterion(model(x), y)\n    loss.backward()\n"
        "    optimizer.step()\n    optimizer.zero_grad()\n    seen.append(loss.item())\n",
        # not each time
        STEP_LOOP + "    if quiet:\n        continue\n    outputs.append(out.cpu())\n",
        # only the images are moved
        "batches = iter(leaves)\nfor _ in range(len(leaves)):\n    x, y = next(batches)\n    loss = criterion(model(x.cuda()), y)\n"
        "    loss.backward()\n    optimizer.step()\n    optimizer.zero_grad()\n    rust += (y == 1).sum().item()\n",
    ],
    "trains-in-evaluation-mode": [
        # switched back by the caller, in each epoch
        "def validate(model):\n    model.eval()\n    with torch.no_grad(): model(x)\nfor epoch in range(9):\n    model.train()\n"
        "    for x, y in loader:\n        optimizer.zero_grad()\n        criterion(model(x), y).backward()\n        optimizer.step()\n    validate(model)\n",
        # another network is evaluated
        "for epoch in range(9):\n    teacher.eval()\n    for x, y in loader:\n        optimizer.zero_grad()\n"
        "        distill(student(x), teacher(x)).backward()\n        optimizer.step()\n    ema.eval()\n",
    ],
    "trains-without-gradients": [
        # only the teacher runs without
        "for x, y in loader:\n    with torch.no_grad():\n        wanted = teacher(x)\n    loss = distill(model(x), wanted)\n"
        "    loss.backward()\n    optimizer.step()\n    optimizer.zero_grad()\n",
        # which of both is decided by the phase
        "for phase in phases:\n    for x, y in loaders[phase]:\n        with torch.set_grad_enabled(phase == 'train'):\n            loss = criterion(model(x), y)\n"
        "            if phase == 'train':\n                loss.backward()\n                optimizer.step()\n                optimizer.zero_grad()\n",
        "for x, y in loader:\n    if train:\n        loss = criterion(model(x), y)\n        loss.backward()\n        optimizer.step()\n        optimizer.zero_grad()\n"
        "    else:\n        with torch.no_grad():\n            loss = criterion(model(x), y)\n",
        # switched on again, or not switched off where it trains
        "torch.set_grad_enabled(False)\nevaluate()\ntorch.set_grad_enabled(True)" + STEP_LOOP,
        "off = torch.no_grad()\noff.__enter__()\nevaluate()\noff.__exit__(None, None, None)" + STEP_LOOP,
        "if test_only:\n    torch.set_grad_enabled(False)" + STEP_LOOP,
        "off = torch.set_grad_enabled(False)\nwith off:\n    evaluate()" + STEP_LOOP,
        "torch.set_grad_enabled(False)\nwith torch.enable_grad():\n    for x, y in loader:\n"
        "        criterion(model(x), y).backward()\n        optimizer.step()\n        optimizer.zero_grad()\n",
        STEP_LOOP + "torch.set_grad_enabled(False)\nevaluate()\n",
    ],
    "new-scaler-per-epoch": [
        # one for each fold, whose network is new too
        "for fold in range(5):\n    model = Net()\n    optimizer = torch.optim.AdamW(model.parameters())\n    scaler = torch.amp.GradScaler('cuda')\n"
        "    for x, y in loader:\n        optimizer.zero_grad()\n        scaler.scale(criterion(model(x), y)).backward()\n        scaler.step(optimizer)\n        scaler.update()\n",
    ],
    "batch-means-over-samples": [
        "criterion = nn.CrossEntropyLoss(reduction='sum')\nfor x, y in loader:\n    loss = criterion(model(x), y)\n    loss.backward()\n    optimizer.step()\n"
        "    optimizer.zero_grad()\n    total += loss.detach()\nmean = total / len(loader.dataset)\n",
    ],
    "mean-of-batch-means": [
        # all batches have one size
        "loader = DataLoader(leaves, 32, drop_last=True)\nfor x, y in loader:\n    loss = criterion(model(x), y)\n    loss.backward()\n    optimizer.step()\n"
        "    optimizer.zero_grad()\n    total += loss.detach()\nmean = total / len(loader)\n",
        # hits are counted, not averaged
        "for x, y in loader:\n    out = model(x)\n    hits += (out.argmax(1) == y).sum()\n    seen += y.size(0)\naccuracy = hits / seen\n",
        "for x, y in loader:\n    loss = criterion(model(x), y)\n    loss.backward()\n    optimizer.step()\n    optimizer.zero_grad()\n"
        "    total += loss.detach() * y.size(0)\nmean = total / len(loader.dataset)\n",
        # sums, and a sum by samples
        STEP_LOOP.replace("criterion(out, y)", "(out - y).square().sum()")
        + "    total += loss.item()\nmean = total / len(loader)\n",
        "for x, y in loader:\n    e = criterion(model(x), y)\n    e.backward()\n    optimizer.step(); optimizer.zero_grad()\n"
        "    s += e.detach() * len(y)\n    n += len(y)\nprint(s / n)\n",
        # each epoch is one whole batch
        "for epoch in range(epochs):\n    loss = criterion(model(x), y)\n    loss.backward()\n    optimizer.step(); optimizer.zero_grad()\n"
        "    total += loss.detach()\nprint(total / epochs)\n",
        # a gradient's norm belongs to an update, not to samples
        STEP_LOOP + "    size = torch.stack(norms).mean()\n    sizes.append(size)\nprint(np.mean(sizes))\n",
    ],
    "evaluates-with-gradients": [
        "@torch.inference_mode()\ndef validate(model):\n    model.eval()\n    for x, y in val_loader:\n        hits(model(x), y)\n",
        "def run(model):\n    model.eval()\n    for x, y in test_loader:\n        hits(model(x), y)\nwith torch.no_grad():\n    run(model)\n",
    ],
    "black-image": [
        "try:\n    image = Image.open(path)\nexcept OSError as error:\n    raise BadImage(path) from error\n",
        "canvas = np.zeros((9, 9))\n",
        # no label, no training: a picture for a person
        "def heatmap_for(path, cam, size):\n    try:\n        return cam(Image.open(path))\n    except OSError:\n"
        "        return np.zeros((size, size))\n",
    ],
    "argparse-bool": [
        "parser.add_argument('--amp', action=argparse.BooleanOptionalAction)\n",
        "parser.add_argument('--lr', type=float)\n",
    ],
    "scaler-does-not-clip": ["# clip after unscale_, before the scaler's step\n"],
    "amp-on-cpu": ["# mixed precision on the CPU takes bf16\n"],
}
