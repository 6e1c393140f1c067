"""Mutants of `scripts/mutate.py` that change nothing, with the reason: place and new source → why."""

UNREAD = "the number is not read in this form"
NOTHING_TO_MULTIPLY = "what it stands before is 0 there"

A_SIGN = "only the sign of the product is read, and a quotient's is the same"
A_SQUARE = "the difference is squared"
A_TURN = "the iteration does to a matrix and to its transpose the same, to one of them with smaller products"
A_SCALE = "eigenvectors and the factors of QR do not see the scale"

EQUIVALENT: dict[str, str] = {
    "Adagrad.scalars: inside, outside = (self.eps, 0.0) if self.eps_in_sqrt else (1.0, self.eps)": UNREAD,
    "Adamax.scalars: inside, after = (self.eps, 0.0) if self.eps_in_max else (1.0, self.eps)": UNREAD,
    "RmsProp.scalars: inside, outside = (self.eps * r * r, 0.0) if self.eps_in_sqrt else (1.0, self.eps * r)": UNREAD,
    "negative_logarithm: while x <= 2.0 / 3.0:": "one number among all",
    "negative_logarithm: square, total = (ratio * ratio, 1.0)": "it is multiplied with the 32nd power of a fifth",
    "OptimisticAdam.scalars: of_m, of_g = (r / c1, 1.0)": UNREAD,
    "_optimism: return (lr * alpha, 1.0) if t == 1 else (lr * (alpha + beta), lr * beta)": NOTHING_TO_MULTIPLY,
    "Novograd.of_tensor: return (1.0 / size if size else 1.0,)": NOTHING_TO_MULTIPLY,
    "AdEMAMix._slow_decay: if t > self.beta3_warmup or min(self.beta1, self.beta3) == 0.0:": "the line ends at beta3",
    "PolyakSgd.of_run: step = min(gap / size, self.max_lr) if size >= NO_GRADIENT else 0.0": "one number among all",
    "SignSgd.change: multiply(sign(divide(g, scale, u), u), lr, u)": A_SIGN,
    "Rprop.change: sign(multiply(divide(g, scale, u), sign(p, p), turn), turn)": A_SIGN,
    "rectification: return math.sqrt((p - 4.0) * (p - 2.0) * q / ((q - 4.0) * (q - 2.0) * p)) if p >= trusted "
    "else 0.0": "one number among all",
    "AdaBelief.change: multiply(subtract(m, multiply(g, scale, u), u), take2, u)": A_SQUARE,
    "AcProp.change: multiply(subtract(m, multiply(g, scale, u), u), take2, u)": A_SQUARE,
    "AcProp.scalars: correct = 1.0 / math.sqrt(1.0 - integer_power(self.beta2, t - 1)) if t > 1 else 0.0": (
        NOTHING_TO_MULTIPLY
    ),
    "Dog.rate: return memory['distance_max'] / root if root else 1.0": NOTHING_TO_MULTIPLY,
    "Dowg.rate: return reached / root if root else 1.0": NOTHING_TO_MULTIPLY,
    "_OverDistance.measure: x = w if c[0] else subtract(s[0], w, a[0])": A_SQUARE,
    "DAdaptSgd.of_run: steps = [d * group.lr / memory['first_norm'] if memory['first_norm'] else 1.0 for group in "
    "groups]": NOTHING_TO_MULTIPLY,
    "_Momo.of_run: longest = max(grown * (gap - correction * bound) + product, 0.0) / size if size >= NO_GRADIENT else "
    "0.0": "one number among all",
    "_Momo._bound: return max(cap / (2.0 * unit), self.lower_bound) if cap <= unit * known else known": (
        "one number among all"
    ),
    "_ScheduleFree.steps: share, rate = (1.0, self.rate(t, lr))": NOTHING_TO_MULTIPLY,
    "warmed: return lr * (t / warmup_steps) if t <= warmup_steps else lr": "t / t is 1",
    "orthogonalized: turned = x.shape[0] <= x.shape[1]": A_TURN,
    "orthogonalized: turned = x.shape[0] >= x.shape[1]": A_TURN,
    "orthogonalized: turned = x.shape[1] > x.shape[1]": A_TURN,
    "Shampoo._take_root: begun.flat[::begun.shape[1] + 1] += self.eps": "the matrix is square",
    "eigenbasis: basis: Array = np.linalg.eigh(matrix.astype(np.float64))[1][:, ::+1]": (
        "no step sees the order of a basis, and the next basis puts its own in order"
    ),
    "Soap.change: keep_and_add(statistic, beta, divide(outer(g, axis), 1.0 - beta))": A_SCALE,
    "Soap.change: keep_and_add(statistic, beta, multiply(outer(g, axis), 1.0 + beta))": A_SCALE,
    "real_power: if base <= 1.0:": "of 1 both ways are 1",
    "decaying_exponential: result = 0.0": "the term of x^11 is below the last place",
    "decaying_exponential: for n in range(12, 0, -1):": "the term of x^12 is below the last place",
    "decaying_exponential: if x >= 745.0:": "one number among all",
    "decaying_exponential: if x > 1117.5:": "the squarings underflow to the same 0",
    "decaying_exponential: while x >= 0.0625:": "both ways round that one argument to the same bits, or to the last",
}
