//! Muon: a matrix's momentum, made orthogonal, is its step. Which tensors it moves is decided in `optimizer`.
//!
//! For a matrix of r rows and c columns with gradient g (clipped), at learning rate η:
//! 1. b ← μ·b + (1 − μ)·g, and u = (1 − μ)·g + μ·b (Nesterov);
//! 2. X = u ÷ max(‖u‖, 10⁻⁷), then five times, with A = XXᵀ (or XᵀX on the right, whichever is smaller):
//!    X ← a·X + (b·A + c·A²)·X with (a, b, c) = (3.4445, −4.7750, 2.0315): Newton-Schulz, which brings every singular value
//!    near 1 (Jordan et al., <https://kellerjordan.github.io/posts/muon/>);
//! 3. θ ← θ·(1 − ηλ) − η·0.2·√max(r, c)·X: the factor gives the step the size of AdamW's, so that rates can be shared
//!    (Liu et al., arXiv 2502.16982, section 2.2).
//!
//! As `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, but for f32 where that rounds X to bf16.

use super::blocks::multiply_on;
use super::pool::Pool;
use super::product::{Into, View, ViewMut, fma};
use super::row_tasks::sum_of_squares;
use covey_simd::vectorised;

/// Coefficients of an iteration: a, b, c.
const QUINTIC: (f32, f32, f32) = (3.4445, -4.7750, 2.0315);
/// Iterations.
const ITERATIONS: usize = 5;
/// Size of a step's elements beside AdamW's, of which 0.2 to 0.4 is typical.
const RMS: f64 = 0.2;

/// The numbers of one Muon step.
#[derive(Clone, Copy)]
pub(super) struct Muon {
    /// What clipping multiplies the gradient by.
    pub(super) scale: f32,
    /// μ.
    pub(super) momentum: f32,
    /// η, before the factor that depends on the matrix.
    pub(super) rate: f64,
    /// 1 − ηλ.
    pub(super) decay: f32,
}

/// Room for the largest matrix: X and a product of its size, A and A² of its smaller side.
pub(super) struct Workspace {
    x: Vec<f32>,
    product: Vec<f32>,
    gram: Vec<f32>,
    square: Vec<f32>,
}

impl Workspace {
    /// Room for matrices of these shapes.
    pub(super) fn new(shapes: impl Iterator<Item = (usize, usize)> + Clone) -> Workspace {
        let (whole, square) = rooms(shapes);
        let room = |elements| vec![0.0; elements];
        Workspace { x: room(whole), product: room(whole), gram: room(square), square: room(square) }
    }

    /// Elements of what [`Workspace::new`] would make.
    pub(super) fn elements(shapes: impl Iterator<Item = (usize, usize)> + Clone) -> usize {
        let (whole, square) = rooms(shapes);
        2 * (whole + square)
    }

    /// Moves one matrix `[rows, columns]` and its momentum.
    pub(super) fn step(
        &mut self,
        pool: &Pool,
        (rows, columns): (usize, usize),
        parameters: &mut [f32],
        momentum: &mut [f32],
        gradient: &[f32],
        by: &Muon,
    ) {
        nesterov(&mut self.x[..rows * columns], momentum, gradient, by.scale, by.momentum);
        self.orthogonalise(pool, rows, columns);
        let rate = by.rate * RMS * (rows.max(columns) as f64).sqrt();
        apply(parameters, &self.x[..rows * columns], by.decay, rate as f32);
    }

    /// Newton-Schulz on X in place.
    fn orthogonalise(&mut self, pool: &Pool, rows: usize, columns: usize) {
        let small = rows.min(columns);
        let x = &mut self.x[..rows * columns];
        let product = &mut self.product[..rows * columns];
        let (gram, square) = (&mut self.gram[..small * small], &mut self.square[..small * small]);
        scale(x, (1.0 / sum_of_squares(pool, x).sqrt().max(1e-7)) as f32);
        let (a, b, c) = QUINTIC;
        for _ in 0..ITERATIONS {
            let view = View::dense(x, rows, columns);
            let (left, right) = if rows <= columns { (view, view.t()) } else { (view.t(), view) };
            multiply_on(pool, ViewMut::dense(gram, small, small), left, right, Into::Set);
            let view = View::dense(gram, small, small);
            multiply_on(pool, ViewMut::dense(square, small, small), view, view, Into::Set);
            combine(gram, b, square, c);
            let (x_view, gram_view) = (View::dense(x, rows, columns), View::dense(gram, small, small));
            let (left, right) = if rows <= columns { (gram_view, x_view) } else { (x_view, gram_view) };
            multiply_on(pool, ViewMut::dense(product, rows, columns), left, right, Into::Set);
            combine(x, a, product, 1.0);
        }
    }
}

/// Elements of the largest matrix, and of the largest square of a smaller side.
fn rooms(shapes: impl Iterator<Item = (usize, usize)> + Clone) -> (usize, usize) {
    let whole = shapes.clone().map(|(rows, columns)| rows * columns).max().unwrap_or(0);
    let square = shapes.map(|(rows, columns)| rows.min(columns).pow(2)).max().unwrap_or(0);
    (whole, square)
}

vectorised! {
    /// b ← μ·b + (1 − μ)·g, out = (1 − μ)·g + μ·b, with g scaled.
    fn nesterov(out: &mut [f32], momentum: &mut [f32], gradient: &[f32], scale: f32, mu: f32) {
        let keep = 1.0 - mu;
        for ((out, momentum), gradient) in out.iter_mut().zip(momentum).zip(gradient) {
            let fresh = gradient * scale * keep;
            *momentum = fma::<FMA>(*momentum, mu, fresh);
            *out = fma::<FMA>(*momentum, mu, fresh);
        }
    }

    /// x ← a·x + b·y.
    fn combine(x: &mut [f32], a: f32, y: &[f32], b: f32) {
        for (x, y) in x.iter_mut().zip(y) {
            *x = fma::<FMA>(*x, a, y * b);
        }
    }

    fn scale(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }

    /// θ ← θ·decay − rate·x.
    fn apply(parameters: &mut [f32], x: &[f32], decay: f32, rate: f32) {
        for (parameter, x) in parameters.iter_mut().zip(x) {
            *parameter = fma::<FMA>(*parameter, decay, -(x * rate));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::uniform;

    /// The definition in f64, without a trick: u of one step from zero momentum, orthogonalised by its formula.
    fn reference(rows: usize, columns: usize, gradient: &[f32], mu: f64) -> Vec<f64> {
        let u: Vec<f64> = gradient.iter().map(|g| f64::from(*g) * ((1.0 - mu) + mu * (1.0 - mu))).collect();
        let norm = u.iter().map(|x| x * x).sum::<f64>().sqrt();
        let mut x: Vec<f64> = u.iter().map(|x| x / norm).collect();
        let product = |a: &[f64], b: &[f64], n: usize, m: usize, k: usize| -> Vec<f64> {
            (0..n * m).map(|at| (0..k).map(|i| a[at / m * k + i] * b[i * m + at % m]).sum()).collect()
        };
        let transposed: fn(&[f64], usize, usize) -> Vec<f64> =
            |x, rows, columns| (0..rows * columns).map(|at| x[at % rows * columns + at / rows]).collect();
        for _ in 0..ITERATIONS {
            let gram = product(&x, &transposed(&x, rows, columns), rows, rows, columns);
            let square = product(&gram, &gram, rows, rows, rows);
            let mixed: Vec<f64> = gram.iter().zip(&square).map(|(a, s)| -4.7750 * a + 2.0315 * s).collect();
            let y = product(&mixed, &x, rows, columns, rows);
            x = x.iter().zip(&y).map(|(x, y)| 3.4445 * x + y).collect();
        }
        x
    }

    fn moved(rows: usize, columns: usize, gradient: &[f32]) -> Vec<f32> {
        let mut space = Workspace::new([(rows, columns), (3, 5)].into_iter());
        let (mut parameters, mut momentum) = (vec![0.0; rows * columns], vec![0.0; rows * columns]);
        let by = Muon { scale: 1.0, momentum: 0.95, rate: 1.0, decay: 1.0 };
        space.step(&Pool::new(2), (rows, columns), &mut parameters, &mut momentum, gradient, &by);
        parameters
    }

    #[test]
    fn a_step_is_the_formulas_whichever_side_is_longer() {
        for (rows, columns) in [(24, 40), (40, 24), (16, 16), (1, 7), (7, 1)] {
            let gradient = uniform(rows * columns, 5);
            let factor = RMS * (rows.max(columns) as f64).sqrt();
            let expected = reference(rows, columns, &gradient, 0.95);
            for (ours, expected) in moved(rows, columns, &gradient).iter().zip(&expected) {
                assert!((f64::from(-ours) / factor - expected).abs() < 2e-5, "{rows} x {columns}: {ours} {expected}");
            }
        }
    }

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/golden_muon.json");

    /// As tests/interop/golden_muon.py has them.
    fn numbers(count: usize, step: usize) -> Vec<f32> {
        let value = |i: usize| ((31 * i * i + 7919 * i + 104_729 * step) % 2003) as f64 / 1001.0 - 1.0;
        (0..count).map(|i| value(i) as f32).collect()
    }

    /// How far `ours` is from `golden`, which has every fifth element, as a share of the way from `start` to it.
    fn off(start: &[f32], ours: &[f32], golden: &serde_json::Value) -> f64 {
        let golden: Vec<f64> = golden.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
        assert_eq!(golden.len(), ours.len().div_ceil(5));
        let norm = |from: &[f32]| {
            from.iter().step_by(5).zip(&golden).map(|(from, to)| (f64::from(*from) - to).powi(2)).sum::<f64>().sqrt()
        };
        norm(ours) / norm(start)
    }

    /// PyTorch's formula in f32 to the rounding, `torch.optim.Muon` to what its bfloat16 loses (1.2 to 1.8 % of a step here).
    #[test]
    fn five_steps_are_those_of_pytorch() {
        let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(GOLDEN).unwrap()).unwrap();
        let number = |name: &str| golden[name].as_f64().unwrap();
        let rate = number("rate");
        let decay = (1.0 - rate * number("weight_decay")) as f32;
        let by = Muon { scale: 1.0, momentum: number("momentum") as f32, rate, decay };
        for matrix in golden["matrices"].as_array().unwrap() {
            let size = |name: &str| usize::try_from(matrix[name].as_u64().unwrap()).unwrap();
            let (rows, columns) = (size("rows"), size("columns"));
            let start = numbers(rows * columns, 100);
            let (mut parameters, mut momentum) = (start.clone(), vec![0.0; start.len()]);
            let mut space = Workspace::new([(rows, columns)].into_iter());
            for step in 0..golden["steps"].as_u64().unwrap() as usize {
                let gradient = numbers(start.len(), step);
                space.step(&Pool::new(1), (rows, columns), &mut parameters, &mut momentum, &gradient, &by);
                let name = if step == 0 { "first" } else { "last" };
                if step == 0 || step == 4 {
                    let (exact, rounded) = (&matrix["f32"][name], &matrix["torch"][name]);
                    let (exact, rounded) = (off(&start, &parameters, exact), off(&start, &parameters, rounded));
                    assert!(exact < 1e-5 && rounded < 0.02, "{rows} x {columns}, step {step}: {exact} {rounded}");
                }
            }
        }
    }

    /// Singular values squared are the eigenvalues of XXᵀ; the largest and the smallest by power iteration.
    #[test]
    fn the_singular_values_of_a_step_are_near_one() {
        let (rows, columns) = (128, 256);
        let step = moved(rows, columns, &uniform(rows * columns, 9));
        let factor = RMS * (columns as f64).sqrt();
        let x: Vec<f64> = step.iter().map(|value| f64::from(*value) / factor).collect();
        let gram: Vec<f64> = (0..rows * rows)
            .map(|at| (0..columns).map(|i| x[at / rows * columns + i] * x[at % rows * columns + i]).sum())
            .collect();
        let power = |shift: f64| {
            let mut v: Vec<f64> = uniform(rows, 3).into_iter().map(f64::from).collect();
            let mut value = 0.0;
            for _ in 0..2000 {
                let mut w: Vec<f64> = (0..rows)
                    .map(|r| (0..rows).map(|c| gram[r * rows + c] * v[c]).sum::<f64>() - shift * v[r])
                    .collect();
                value = w.iter().map(|w| w * w).sum::<f64>().sqrt();
                w.iter_mut().for_each(|w| *w /= value);
                v = w;
            }
            value
        };
        let largest = power(0.0);
        let smallest = largest - power(largest);
        let (least, most) = (smallest.sqrt(), largest.sqrt());
        assert!(least > 0.68 && most < 1.14, "singular values {least} to {most}");
    }
}
