//! What moves the parameters of a trainer: which tensors by AdamW and at which rate, which by Muon, and the moments that
//! both keep.
//!
//! The *hidden matrices* are the layers' matrices. AdamW moves them at the run's `rate`, like the norms; embedding and output
//! matrix have the `embed_rate`. With Muon, it moves the hidden matrices at `rate`, and AdamW all the rest at `embed_rate`.
//! Elements do not see each other in AdamW: how the state is cut into parts changes no bit.

use super::kernels::AdamW;
use super::muon::{Muon, Workspace};
use super::pool::Pool;
use super::row_tasks::adamw;
use crate::backend::{LoadError, SaveError, StepHyper};
use crate::moments::{Kind, MomentsReader, MomentsWriter};
use covey_proto::layout::{Layout, Tensor};
use covey_proto::run::Optimizer;
use std::io;
use std::ops::Range;

/// The moments, and what they move.
pub(super) struct Moments {
    kind: Kind,
    parts: Vec<Part>,
    /// AdamW's first moments and Muon's momentum, as long as the model.
    first: Vec<f32>,
    /// AdamW's second moments: of those elements that it moves, one part after the other.
    second: Vec<f32>,
    steps: u64,
    workspace: Workspace,
}

/// Some neighbouring tensors that are moved alike.
struct Part {
    range: Range<usize>,
    by: By,
}

#[derive(Clone, PartialEq)]
enum By {
    /// Its second moments lie here.
    AdamW(Rate, Range<usize>),
    /// One matrix, `[rows, columns]`.
    Muon(usize, usize),
}

#[derive(Clone, Copy, PartialEq)]
enum Rate {
    Hidden,
    Embed,
}

impl Moments {
    /// Zero moments for a model.
    pub(super) fn new(layout: &Layout, optimizer: Optimizer) -> Moments {
        let (parts, second) = parts(layout, optimizer);
        let workspace = Workspace::new(parts.iter().filter_map(Part::matrix));
        let kind = match optimizer {
            Optimizer::AdamW => Kind::AdamW,
            Optimizer::Muon => Kind::Muon { second },
        };
        let (first, second) = (vec![0.0; layout.elements()], vec![0.0; second]);
        Moments { kind, parts, first, second, steps: 0, workspace }
    }

    /// Elements of what [`Moments::new`] would make: of the moments, and of what is worked in.
    pub(super) fn elements(layout: &Layout, optimizer: Optimizer) -> (usize, usize) {
        let (parts, second) = parts(layout, optimizer);
        (layout.elements() + second, Workspace::elements(parts.iter().filter_map(Part::matrix)))
    }

    /// Steps since the moments were zero.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// One step of all parameters.
    pub(super) fn step(
        &mut self,
        pool: &Pool,
        parameters: &mut [f32],
        gradient: &[f32],
        hyper: &StepHyper,
        gradient_norm: f64,
    ) {
        let clipped = if gradient_norm > hyper.clip { hyper.clip / gradient_norm } else { 1.0 };
        self.steps += 1;
        let adamw_at = |rate: f64| adamw_numbers(hyper, rate, clipped, self.steps);
        let (hidden, embed) = (adamw_at(hyper.rate), adamw_at(hyper.embed_rate));
        let muon = Muon {
            scale: clipped as f32,
            momentum: hyper.momentum as f32,
            rate: hyper.rate,
            decay: (1.0 - hyper.rate * hyper.weight_decay) as f32,
        };
        for Part { range, by } in &self.parts {
            let (parameters, gradient) = (&mut parameters[range.clone()], &gradient[range.clone()]);
            let first = &mut self.first[range.clone()];
            match by {
                By::Muon(rows, columns) => {
                    self.workspace.step(pool, (*rows, *columns), parameters, first, gradient, &muon);
                }
                By::AdamW(rate, second) => {
                    let numbers = if *rate == Rate::Embed { &embed } else { &hidden };
                    adamw(pool, parameters, first, &mut self.second[second.clone()], gradient, numbers);
                }
            }
        }
    }

    pub(super) fn reset(&mut self) {
        self.first.fill(0.0);
        self.second.fill(0.0);
        self.steps = 0;
    }

    pub(super) fn save(&self, to: &mut dyn io::Write) -> Result<(), SaveError> {
        let mut writer = MomentsWriter::begin(to, self.kind, self.steps, self.first.len())?;
        writer.write(&self.first)?;
        writer.write(&self.second)?;
        Ok(writer.finish()?)
    }

    /// Reads what [`Moments::save`] wrote; the moments are zero if that fails.
    pub(super) fn restore(&mut self, from: &mut dyn io::Read) -> Result<(), LoadError> {
        let mut read = || {
            let (mut reader, steps) = MomentsReader::begin(from, self.kind, self.first.len())?;
            reader.read(&mut self.first)?;
            reader.read(&mut self.second)?;
            reader.finish()?;
            Ok(steps)
        };
        match read() {
            Ok(steps) => self.steps = steps,
            Err(error) => {
                self.reset();
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Part {
    fn matrix(&self) -> Option<(usize, usize)> {
        match self.by {
            By::Muon(rows, columns) => Some((rows, columns)),
            By::AdamW(..) => None,
        }
    }
}

/// The numbers of AdamW's step `steps`.
fn adamw_numbers(hyper: &StepHyper, rate: f64, clipped: f64, steps: u64) -> AdamW {
    let steps = i32::try_from(steps).unwrap_or(i32::MAX);
    AdamW {
        scale: clipped as f32,
        beta1: hyper.beta1 as f32,
        beta2: hyper.beta2 as f32,
        keep1: (1.0 - hyper.beta1) as f32,
        keep2: (1.0 - hyper.beta2) as f32,
        rate: (rate / (1.0 - hyper.beta1.powi(steps))) as f32,
        inverse_root2: (1.0 / (1.0 - hyper.beta2.powi(steps)).sqrt()) as f32,
        epsilon: hyper.epsilon as f32,
        decay: (1.0 - rate * hyper.weight_decay) as f32,
    }
}

/// The parts of a model's state, in its order, and how many second moments they have.
fn parts(layout: &Layout, optimizer: Optimizer) -> (Vec<Part>, usize) {
    let mut parts: Vec<Part> = Vec::new();
    let mut second = 0;
    for tensor in layout.tensors() {
        let (range, by) = (tensor.range(), by(tensor, optimizer, second));
        if let By::AdamW(..) = by {
            second += range.len();
        }
        // Neighbours that AdamW moves at one rate are one part.
        match (parts.last_mut(), by) {
            (Some(Part { range: last, by: By::AdamW(rate, seconds) }), By::AdamW(same, more)) if *rate == same => {
                (last.end, seconds.end) = (range.end, more.end);
            }
            (_, by) => parts.push(Part { range, by }),
        }
    }
    (parts, second)
}

fn by(tensor: &Tensor, optimizer: Optimizer, second: usize) -> By {
    let is_layers = tensor.name.starts_with("model.layers.");
    let seconds = second..second + tensor.elements();
    match (optimizer, &tensor.shape[..]) {
        (Optimizer::Muon, &[rows, columns]) if is_layers => By::Muon(rows, columns),
        (Optimizer::AdamW, &[_, _]) if !is_layers => By::AdamW(Rate::Embed, seconds),
        (Optimizer::Muon, _) => By::AdamW(Rate::Embed, seconds),
        (Optimizer::AdamW, _) => By::AdamW(Rate::Hidden, seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{small_model, uniform};

    const HYPER: StepHyper = StepHyper {
        rate: 0.01,
        embed_rate: 0.04,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        clip: 1.0,
        momentum: 0.95,
    };

    fn layout() -> Layout {
        Layout::of(&small_model())
    }

    fn after(moments: &mut Moments, hyper: &StepHyper, steps: u64) -> Vec<f32> {
        let elements = layout().elements();
        let mut parameters = uniform(elements, 1);
        for step in 0..steps {
            moments.step(&Pool::new(1), &mut parameters, &uniform(elements, 10 + step), hyper, 3.0);
        }
        parameters
    }

    #[test]
    fn every_element_is_moved_once_and_hidden_matrices_alone_lack_second_moments() {
        let layout = layout();
        for optimizer in [Optimizer::AdamW, Optimizer::Muon] {
            let (parts, second) = parts(&layout, optimizer);
            let mut at = 0;
            for part in &parts {
                assert_eq!(part.range.start, at);
                at = part.range.end;
            }
            assert_eq!(at, layout.elements());
            let hidden: usize = parts.iter().filter_map(Part::matrix).map(|(rows, columns)| rows * columns).sum();
            assert_eq!(second + hidden, layout.elements());
            assert_eq!(hidden > 0, optimizer == Optimizer::Muon);
            let moments = Moments::new(&layout, optimizer);
            let held = (moments.first.len() + moments.second.len(), moments.workspace_elements());
            assert_eq!(Moments::elements(&layout, optimizer), held);
        }
    }

    impl Moments {
        fn workspace_elements(&self) -> usize {
            Workspace::elements(self.parts.iter().filter_map(Part::matrix))
        }
    }

    #[test]
    fn an_embedding_at_the_rate_of_all_is_adamw_in_one_piece() {
        let hyper = StepHyper { embed_rate: HYPER.rate, ..HYPER };
        let parts = after(&mut Moments::new(&layout(), Optimizer::AdamW), &hyper, 3);
        let elements = layout().elements();
        let (mut whole, mut first, mut second) = (uniform(elements, 1), vec![0.0; elements], vec![0.0; elements]);
        for step in 0..3 {
            let numbers = adamw_numbers(&hyper, hyper.rate, 1.0 / 3.0, step + 1);
            adamw(&Pool::new(2), &mut whole, &mut first, &mut second, &uniform(elements, 10 + step), &numbers);
        }
        assert!(parts == whole);
    }

    #[test]
    fn the_embedding_has_its_own_rate() {
        let still = StepHyper { embed_rate: 0.0, ..HYPER };
        for optimizer in [Optimizer::AdamW, Optimizer::Muon] {
            let moved = after(&mut Moments::new(&layout(), optimizer), &still, 2);
            for tensor in layout().tensors() {
                let is_moved = moved[tensor.range()] != uniform(layout().elements(), 1)[tensor.range()];
                let hidden = tensor.name.starts_with("model.layers.") && tensor.shape.len() == 2;
                let norm = tensor.shape.len() == 1;
                assert_eq!(is_moved, hidden || (norm && optimizer == Optimizer::AdamW), "{}", tensor.name);
            }
        }
    }

    #[test]
    fn moments_that_were_saved_go_on_to_the_bit_and_those_of_another_optimizer_are_refused() {
        for optimizer in [Optimizer::AdamW, Optimizer::Muon] {
            let mut moments = Moments::new(&layout(), optimizer);
            after(&mut moments, &HYPER, 3);
            let mut file = Vec::new();
            moments.save(&mut file).unwrap();
            let mut other = Moments::new(&layout(), optimizer);
            other.restore(&mut &file[..]).unwrap();
            assert_eq!(other.steps(), 3);
            assert!(after(&mut other, &HYPER, 2) == after(&mut moments, &HYPER, 2), "{optimizer:?}");
            let stranger = if optimizer == Optimizer::Muon { Optimizer::AdamW } else { Optimizer::Muon };
            let refused = Moments::new(&layout(), stranger).restore(&mut &file[..]);
            assert!(matches!(refused, Err(LoadError::Kind { .. })));
        }
    }
}
