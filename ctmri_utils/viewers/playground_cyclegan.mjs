// A CycleGAN for points in the plane: two generators, two discriminators, and their training.
//
// Points are arrays x0, y0, x1, y1 ... of 64-bit numbers. The losses are those of
// cyclegan/losses.py, and a step is that of cyclegan/training.py; a test compares them with torch.

const GENERATOR = [2, 16, 16, 2];
const DISCRIMINATOR = [2, 16, 16, 1];
const BETA1 = 0.5; // of Adam, as in the package
const BETA2 = 0.999;
const EPSILON = 1e-8;
const LEAK = 0.2; // slope of a leaky ReLU below zero

// Numbers that look random and are the same for the same seed (mulberry32).
function seeded(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

// Linear layers with leaky ReLUs between them, and Adam for their weights.
class Network {
  constructor(widths, random) {
    this.layers = [];
    let start = 0;
    for (let k = 1; k < widths.length; k++) {
      const [inputs, outputs] = [widths[k - 1], widths[k]];
      this.layers.push({ inputs, outputs, start, bias: start + inputs * outputs });
      start += (inputs + 1) * outputs;
    }

    this.weights = new Float64Array(start);
    this.gradient = new Float64Array(start);
    this.mean = new Float64Array(start);
    this.square = new Float64Array(start);
    this.updates = 0;

    // As torch draws a linear layer: evenly within 1 / sqrt(inputs).
    for (const { inputs, outputs, start } of this.layers) {
      const count = (inputs + 1) * outputs;
      for (let i = start; i < start + count; i++) {
        this.weights[i] = (2 * random() - 1) / Math.sqrt(inputs);
      }
    }
  }

  // The values after each layer; the first are the points, the last the answer.
  forward(points) {
    const values = [points];
    const count = points.length / this.layers[0].inputs;
    this.layers.forEach(({ inputs, outputs, start, bias }, k) => {
      const { weights } = this;
      const before = values[k];
      const after = new Float64Array(count * outputs);
      const hidden = k + 1 < this.layers.length;
      for (let n = 0; n < count; n++) {
        const point = n * inputs;
        for (let o = 0; o < outputs; o++) {
          const row = start + o * inputs;
          let sum = weights[bias + o];
          for (let i = 0; i < inputs; i++) sum += weights[row + i] * before[point + i];
          after[n * outputs + o] = hidden && sum < 0 ? LEAK * sum : sum;
        }
      }
      values.push(after);
    });
    return values;
  }

  answer(points) {
    return this.forward(points).at(-1);
  }

  // From the slope of a loss by the answer: its slope by the points. If the network learns, the
  // slope by each weight joins `gradient`.
  backward(values, slope, { learns = true } = {}) {
    const { weights, gradient } = this;
    for (let k = this.layers.length - 1; k >= 0; k--) {
      const { inputs, outputs, start, bias } = this.layers[k];
      const before = values[k];
      const below = new Float64Array(before.length);
      const count = before.length / inputs;
      for (let n = 0; n < count; n++) {
        const point = n * inputs;
        for (let o = 0; o < outputs; o++) {
          const row = start + o * inputs;
          const s = slope[n * outputs + o];
          for (let i = 0; i < inputs; i++) below[point + i] += s * weights[row + i];
          if (!learns) continue;
          for (let i = 0; i < inputs; i++) gradient[row + i] += s * before[point + i];
          gradient[bias + o] += s;
        }
      }

      // A leaky ReLU keeps the sign, so its value tells its slope.
      if (k > 0) {
        for (let j = 0; j < below.length; j++) if (before[j] < 0) below[j] *= LEAK;
      }
      slope = below;
    }
    return slope;
  }

  // One update by Adam (Kingma and Ba 2015), after which the gradient is zero again.
  update(rate) {
    this.updates++;
    const ofMean = 1 - BETA1 ** this.updates;
    const ofSquare = 1 - BETA2 ** this.updates;
    for (let i = 0; i < this.weights.length; i++) {
      const g = this.gradient[i];
      this.mean[i] = BETA1 * this.mean[i] + (1 - BETA1) * g;
      this.square[i] = BETA2 * this.square[i] + (1 - BETA2) * g * g;
      const spread = Math.sqrt(this.square[i] / ofSquare) + EPSILON;
      this.weights[i] -= (rate * this.mean[i]) / ofMean / spread;
    }
    this.gradient.fill(0);
  }
}

// A loss and its slope: mean (verdict - target)^2, the least-squares GAN.
function verdictLoss(verdict, target, weight = 1) {
  let loss = 0;
  const slope = verdict.map((value) => {
    loss += (value - target) ** 2 / verdict.length;
    return (2 * weight * (value - target)) / verdict.length;
  });
  return { loss, slope };
}

// A loss and its slope: mean |point - target|, for cycle and identity.
function distanceLoss(points, targets, weight) {
  let loss = 0;
  const slope = points.map((value, i) => {
    loss += Math.abs(value - targets[i]) / points.length;
    return (weight * Math.sign(value - targets[i])) / points.length;
  });
  return { loss, slope };
}

class PointCycleGAN {
  constructor(seed) {
    const random = seeded(seed);
    this.G_ct2mri = new Network(GENERATOR, random);
    this.G_mri2ct = new Network(GENERATOR, random);
    this.D_ct = new Network(DISCRIMINATOR, random);
    this.D_mri = new Network(DISCRIMINATOR, random);
    this.steps = 0;
  }

  // One training step on both clouds; returns the losses, without their weights.
  step(ct, mri, { cycle, identity, rate }) {
    const { G_ct2mri, G_mri2ct, D_ct, D_mri } = this;
    const toMri = this.generatorPass(G_ct2mri, G_mri2ct, D_mri, ct, mri, { cycle, identity });
    const toCt = this.generatorPass(G_mri2ct, G_ct2mri, D_ct, mri, ct, { cycle, identity });
    const losses = {
      adversarial: toMri.adversarial + toCt.adversarial,
      cycle: toMri.cycle + toCt.cycle,
      identity: toMri.identity + toCt.identity,
      discriminator_mri: this.discriminatorPass(D_mri, mri, toMri.fake),
      discriminator_ct: this.discriminatorPass(D_ct, ct, toCt.fake),
    };

    for (const network of [G_ct2mri, G_mri2ct, D_ct, D_mri]) network.update(rate);
    this.steps++;
    return losses;
  }

  // The losses of one direction: be called real, come back, and leave alone what is there already.
  generatorPass(there, back, discriminator, points, targets, weights) {
    const way = there.forward(points);
    const fake = way.at(-1);

    const judged = discriminator.forward(fake);
    const adversarial = verdictLoss(judged.at(-1), 1);
    const slope = discriminator.backward(judged, adversarial.slope, { learns: false });

    const round = back.forward(fake);
    const cycle = distanceLoss(round.at(-1), points, weights.cycle);
    const slopeOfCycle = back.backward(round, cycle.slope);
    there.backward(way, slope.map((value, i) => value + slopeOfCycle[i]));

    const kept = there.forward(targets);
    const identity = distanceLoss(kept.at(-1), targets, weights.identity);
    there.backward(kept, identity.slope);
    return { fake, adversarial: adversarial.loss, cycle: cycle.loss, identity: identity.loss };
  }

  // Half the sum of calling real points real and translated ones fake.
  discriminatorPass(discriminator, real, fake) {
    let sum = 0;
    for (const [points, target] of [[real, 1], [fake, 0]]) {
      const values = discriminator.forward(points);
      const { loss, slope } = verdictLoss(values.at(-1), target, 0.5);
      discriminator.backward(values, slope);
      sum += 0.5 * loss;
    }
    return sum;
  }
}
