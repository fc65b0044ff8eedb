//! The seam between learning and the device that it runs on: three traits, and what crosses them.
//!
//! A [`Backend`] is a device that has been opened for one model. It makes any number of two kinds of things: a
//! [`LanguageModel`] holds parameters and activations and judges (validator, evaluator, `covey generate`); a [`Trainer`]
//! holds the gradient, AdamW's moments and the error feedback besides, and learns (miner, `covey lab`).
//!
//! What lies on the device stays there. Whole states cross the seam only as streams of bytes, f32 little-endian in the
//! order of [`Layout`](covey_proto::layout::Layout), in blocks of a few hundred kilobytes: there is never a second copy of
//! a model beside the first. From memory, a stream is `&mut state::as_le_bytes(theta)` (see
//! [`covey_sparseloco::state::as_le_bytes`]); from a file, a buffered or plain reader.
//!
//! A caller may call from any thread, one call at a time. A device that wants one thread for all its calls keeps one
//! behind this trait. A call may return before the device is done, where it says so; the next call waits if it must.
//!
//! Which steps are made and at which rate, [`crate::inner`] decides; how a contribution is chosen and rounded,
//! [`covey_sparseloco`]. The same binary on the same machine gives the same bits for the same calls.

mod batch;
mod error;
mod step;

pub use batch::{Batch, BatchError, CONTEXT};
pub use error::{BackendError, LoadError, SaveError, TryError};
pub use step::{Rates, StepHyper, StepStats};

use covey_proto::run::Optimizer;
use covey_sparseloco::{CodecError, CompressStats, Compression, OuterStep, SparseShard};
use std::io;

/// A device, opened for one model: makes what runs on it.
pub trait Backend: Send + Sync {
    /// What it runs on, for people: `cpu (AVX2, 4 threads)`.
    fn name(&self) -> String;

    /// A language model with nothing loaded.
    ///
    /// # Errors
    /// The device has no room, or fails.
    fn model(&self) -> Result<Box<dyn LanguageModel>, BackendError>;

    /// A trainer with nothing loaded, moments and feedback zero.
    ///
    /// # Errors
    /// The device has no room, or fails.
    fn trainer(&self, optimizer: Optimizer) -> Result<Box<dyn Trainer>, BackendError>;

    /// The memory that [`Backend::model`] takes.
    fn model_memory(&self) -> Memory;

    /// Bytes that a model takes besides while it continues a text of `tokens` tokens ([`LanguageModel::extend`]): keys and
    /// values, and activations of a block. A text that grew token by token may take twice its share, and never more than
    /// one that is as long as the model's sequence.
    fn context_bytes(&self, tokens: usize) -> u64;

    /// The memory that [`Backend::trainer`] takes. [`Trainer::contribute`] takes a little more while it runs
    /// ([`covey_sparseloco::working_bytes`]).
    fn trainer_memory(&self, optimizer: Optimizer) -> Memory;
}

/// Bytes that something holds on its device from the beginning to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Arrays as long as the model: 4 bytes a parameter for a language model, 20 for a trainer on a CPU, with Muon 16 for
    /// a layer's matrices.
    pub parameters: u64,
    /// Activations, logits and tables: these grow with the sequence, the width and the threads. With Muon, room for four
    /// copies of a layer's largest matrix too.
    pub activations: u64,
}

impl Memory {
    /// Both.
    pub fn total(self) -> u64 {
        self.parameters + self.activations
    }
}

/// Parameters and activations of one model, 4 bytes a parameter and nothing else as long as it: judges and continues.
pub trait LanguageModel: Send {
    /// Replaces the parameters by the `elements × 4` bytes that `state` gives before its end, bit for bit, in blocks. What
    /// was tried is forgotten.
    ///
    /// # Errors
    /// The reader fails or gives another number of bytes: nothing is loaded then.
    fn load(&mut self, state: &mut dyn io::Read) -> Result<(), LoadError>;

    /// How many batches keep the device busy: who has more gives [`losses`](LanguageModel::losses) at least as many at once.
    fn batches_at_once(&self) -> usize;

    /// The mean loss of each batch, nats a token. All batches are worked on at once, on all threads of the device. The numbers do not depend on threads, nor on what else is in `batches`.
    ///
    /// # Errors
    /// Nothing is loaded, a batch is another model's, or the first loss that is not finite.
    fn losses(&mut self, batches: &[Batch]) -> Result<Vec<f64>, BackendError>;

    /// −log p of each text, in nats, summed over its tokens without [`CONTEXT`] but the first: texts of 2 to `sequence` + 1
    /// tokens, of different lengths. All are worked on at once; the numbers depend on nothing else.
    ///
    /// # Errors
    /// Nothing is loaded, a text of another length, a token beyond the vocabulary, or the first sum that is not finite.
    fn text_losses(&mut self, texts: &[Vec<u32>]) -> Result<Vec<f64>, BackendError>;

    /// Logits, f32 `[tokens, vocabulary]`, of one sequence of 1 to `sequence` tokens.
    ///
    /// # Errors
    /// Nothing is loaded, too many tokens, none, or one beyond the vocabulary.
    fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>, BackendError>;

    /// The tokens that [`extend`](LanguageModel::extend) was given and remembers, in order. What changes the parameters
    /// ([`load`](LanguageModel::load), [`try_step`](LanguageModel::try_step), [`undo`](LanguageModel::undo)) forgets them.
    fn context(&self) -> &[u32];

    /// Adds one or more tokens to the context and gives the logits of what follows them, f32 `[vocabulary]`. A token costs
    /// one pass over the parameters, however long the context is; its keys and values are kept
    /// ([`Backend::context_bytes`], nothing before the first call).
    ///
    /// The logits depend on the tokens alone: neither on threads nor on how a text is cut into calls do their bits depend.
    /// They agree with those of [`logits`](LanguageModel::logits) to rounding.
    ///
    /// # Errors
    /// Nothing is loaded, no token, one beyond the vocabulary, or more than the model's sequence in all: the context is as
    /// before then.
    fn extend(&mut self, tokens: &[u32]) -> Result<&[f32], BackendError>;

    /// Forgets all but the first `length` tokens of the context, so that others may follow them.
    fn rewind(&mut self, length: usize);

    /// Makes the parameters what the outer step of this contribution alone would make of them: θ ← θ − α·(factor·v ÷
    /// max(1, ⌈ρ⌉)) for each value v that it sends, to the very bits of [`covey_sparseloco::outer_step`]; no other
    /// parameter is touched. `shards` come in order and may be decoded as they are asked for. `factors` has one entry a
    /// tensor of the layout, none where the tensor counts as not sent ([`covey_sparseloco::Factors`]; of a contribution
    /// alone they are all 1).
    ///
    /// Costs 6 bytes for each value that is sent until [`undo`](LanguageModel::undo), and no copy of the model. What was
    /// tried before is undone first.
    ///
    /// # Errors
    /// A shard does not decode, shards do not cover the layout, or a parameter would not be finite. The parameters then
    /// have the bits of before.
    fn try_step(
        &mut self,
        shards: &mut dyn Iterator<Item = Result<SparseShard, CodecError>>,
        factors: &[Option<f32>],
        step: OuterStep<'_>,
    ) -> Result<(), TryError>;

    /// Gives the parameters the very bits that they had before [`try_step`](LanguageModel::try_step). Without one, nothing.
    fn undo(&mut self);
}

/// Parameters, gradient, moments and error feedback of one model: learns, and makes contributions of what it learned.
///
/// On a CPU 4 + 4 + 8 + 4 bytes a parameter, and never a whole copy beside them: a contribution is made in the parameters'
/// own memory. A round is [`load`](Trainer::load), [`step`](Trainer::step) …, [`finish`](Trainer::finish),
/// [`contribute`](Trainer::contribute), [`save_feedback`](Trainer::save_feedback); then, once the contribution counts,
/// [`keep_feedback`](Trainer::keep_feedback). Without the last, the round leaves no trace but in the moments.
pub trait Trainer: Send {
    /// Replaces the parameters by the `elements × 4` bytes that `base` gives before its end, bit for bit, in blocks. A
    /// pending feedback is forgotten; moments and the kept feedback stay.
    ///
    /// # Errors
    /// The reader fails or gives another number of bytes: nothing is loaded then.
    fn load(&mut self, base: &mut dyn io::Read) -> Result<(), LoadError>;

    /// Writes the parameters, f32 little-endian, in blocks, after all steps that were begun.
    ///
    /// # Errors
    /// The writer fails, nothing is loaded, or a step had failed.
    fn save(&self, to: &mut dyn io::Write) -> Result<(), SaveError>;

    /// Forward, backward, clip, optimizer. Gives the numbers of this step or of the one before it: a device need not be waited
    /// for. Between this, the next call and [`finish`](Trainer::finish), each step's numbers are given exactly once, in
    /// order. On the CPU they are always this step's.
    ///
    /// A step whose loss or gradient is not finite changes nothing, and neither do steps that were begun after it; its
    /// error may come one call late.
    ///
    /// # Errors
    /// Nothing is loaded, another model's batch, or a loss or gradient that is not finite.
    fn step(&mut self, batch: &Batch, hyper: &StepHyper) -> Result<Option<StepStats>, BackendError>;

    /// Waits for all steps; gives the numbers of the last one, unless they were given.
    ///
    /// # Errors
    /// The last step failed as [`step`](Trainer::step) says.
    fn finish(&mut self) -> Result<Option<StepStats>, BackendError>;

    /// Steps since the moments were reset, those included that are not done yet.
    fn steps(&self) -> u64;

    /// Makes a contribution of what was learned since `base`: a = β·e + (base − parameters), in the parameters' own memory;
    /// chosen values are rounded and encoded, the rest stays there as the *pending* feedback. The kept feedback e stays as
    /// it is until [`keep_feedback`](Trainer::keep_feedback). Afterwards no parameters are loaded. The bits are those of
    /// [`covey_sparseloco::compress()`] on any device.
    ///
    /// `base`, f32 `[elements]`, is what was loaded. While it runs it takes the encoded bytes, and the chosen values of a
    /// few million elements (of all, with the quantiser `templar`), 6 bytes each.
    ///
    /// # Errors
    /// Nothing is loaded, another number of elements, or what would be sent is not finite. The parameters are lost then,
    /// and no feedback is pending.
    fn contribute(&mut self, base: &[f32], how: &Compression) -> Result<EncodedContribution, BackendError>;

    /// The contribution counts: what it left pending becomes the feedback, by exchanging two pointers. Without a pending
    /// one, nothing.
    fn keep_feedback(&mut self);

    /// The contribution does not count: a pending feedback is forgotten, the kept one stays.
    fn discard_feedback(&mut self);

    /// Writes the pending feedback, or the kept one if none is pending: f32 little-endian `[elements]`, in blocks.
    ///
    /// # Errors
    /// The writer fails.
    fn save_feedback(&self, to: &mut dyn io::Write) -> Result<(), SaveError>;

    /// Reads what [`save_feedback`](Trainer::save_feedback) wrote, to the end of `from`, as the kept feedback. A pending one
    /// is forgotten.
    ///
    /// # Errors
    /// The reader fails, gives another number of bytes, or an element that is not finite: the feedback is zero then.
    fn restore_feedback(&mut self, from: &mut dyn io::Read) -> Result<(), LoadError>;

    /// Zeroes the kept feedback and forgets a pending one.
    fn reset_feedback(&mut self);

    /// Writes moments and their count of steps as a `CVYMOM01` file ([`crate::moments`]), in blocks.
    ///
    /// # Errors
    /// The writer fails, or a step had failed.
    fn save_moments(&self, to: &mut dyn io::Write) -> Result<(), SaveError>;

    /// Reads what [`save_moments`](Trainer::save_moments) wrote, to the end of `from`.
    ///
    /// # Errors
    /// The reader fails, or the file is torn or another model's: the moments are zero then.
    fn restore_moments(&mut self, from: &mut dyn io::Read) -> Result<(), LoadError>;

    /// Zeroes the moments and their count of steps.
    fn reset_moments(&mut self);
}

/// A contribution as it goes to the disk and the network.
#[derive(Clone, Debug)]
pub struct EncodedContribution {
    /// The shards' bytes, in order.
    pub shards: Vec<Vec<u8>>,
    /// What it amounts to.
    pub stats: CompressStats,
}
