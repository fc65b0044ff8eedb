//! What a miner must have to go on as if it had never been stopped: error feedback and moments, in one file with the
//! contribution that they came with.
//!
//! A round trains from the state that all agree on, with the moments and the feedback that the round before left. They are
//! written before the journal names the contribution, beside those of the contribution before, and count with it: whichever
//! instant a process is killed at, the journal and one of the two files belong together. Moments know how many steps they are
//! old, so the warm-up goes on as well.

use crate::disk::{Disk, DiskError, JournalContribution};
use covey_proto::{Digest, Round};
use covey_trainer::{LoadError, Trainer};
use std::io::{self, Read, Write};

/// Writes what `trainer` has learned by the contribution of `round`, made from `base`.
///
/// # Errors
/// The disk refuses.
pub(super) fn save(disk: &Disk, round: Round, base: Digest, trainer: &dyn Trainer) -> Result<(), DiskError> {
    disk.write_training(round, base, |file| {
        let mut hashing = Hashing { file, hasher: blake3::Hasher::new() };
        trainer.save_feedback(&mut hashing).map_err(io::Error::other)?;
        let Hashing { file, hasher } = hashing;
        file.write_all(hasher.finalize().as_bytes())?;
        // Moments bring a hash of their own.
        trainer.save_moments(file).map_err(io::Error::other)
    })
}

/// A file, and the hash of what has been written or read.
struct Hashing<F> {
    file: F,
    hasher: blake3::Hasher,
}

impl Write for Hashing<&mut dyn Write> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(bytes)?;
        self.hasher.update(&bytes[..read]);
        Ok(read)
    }
}

/// What was to be had of what a miner had learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restored {
    /// All of it: the next contribution has the bits that it would have had.
    Whole,
    /// Moments of some rounds before, and no feedback.
    Moments,
    /// Nothing: both are zero.
    Nothing,
}

/// Gives `trainer` what it had learned by the contribution that the journal names; where that was not written, the moments
/// that were written last. `elements` are the model's.
///
/// # Errors
/// The disk refuses. What is damaged is said in the log, and begins at zero.
pub(super) fn restore(
    disk: &Disk,
    journalled: &JournalContribution,
    elements: usize,
    (trainer, node): (&mut dyn Trainer, &str),
) -> Result<Restored, DiskError> {
    let feedback_bytes = 4 * elements as u64;
    if let Some(mut file) = disk.training(journalled)? {
        match restore_from(&mut file, feedback_bytes, trainer) {
            Ok(()) => return Ok(Restored::Whole),
            Err(error) => tracing::warn!(%node, %error, "what was learned is damaged: moments and feedback are zero"),
        }
    } else if let Some(mut file) = disk.training_before(journalled.round)? {
        let feedback = feedback_bytes + blake3::OUT_LEN as u64;
        let skipped = io::copy(&mut (&mut file).take(feedback), &mut io::sink()).map_err(LoadError::from);
        match skipped.and_then(|_| trainer.restore_moments(&mut file)) {
            Ok(()) => return Ok(Restored::Moments),
            Err(error) => tracing::warn!(%node, %error, "the optimizer's moments are damaged: they are zero"),
        }
    }
    trainer.reset_moments();
    trainer.reset_feedback();
    Ok(Restored::Nothing)
}

fn restore_from(file: &mut impl Read, feedback_bytes: u64, trainer: &mut dyn Trainer) -> Result<(), LoadError> {
    let mut hashing = Hashing { file: file.by_ref().take(feedback_bytes), hasher: blake3::Hasher::new() };
    trainer.restore_feedback(&mut hashing)?;
    let found = hashing.hasher.finalize();
    let mut expected = [0; blake3::OUT_LEN];
    file.read_exact(&mut expected)?;
    if found != expected {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the error feedback has another hash").into());
    }
    trainer.restore_moments(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{made_up_text, tiny_run};
    use covey_proto::run::Run;
    use covey_sparseloco::state::as_le_bytes;
    use covey_sparseloco::{Compression, decode_shard, outer_step};
    use covey_trainer::data::Dataset;
    use covey_trainer::genesis::initial_state;
    use covey_trainer::inner::train_round;
    use covey_trainer::{Backend, Device, open_backend};

    /// When a process is killed, in the order of a round's writes.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Kill {
        Never,
        /// While it trains.
        Training,
        /// Trained and compressed, nothing written.
        BeforeSaving,
        /// What was learned is written, the journal does not name the contribution yet.
        BeforeJournal,
        /// The journal does.
        AfterJournal,
        /// And the older file is gone.
        AfterAll,
    }

    struct World {
        run: Run,
        data: Dataset,
        backend: Box<dyn Backend>,
        disk: Disk,
        journal: Option<JournalContribution>,
        folders: [tempfile::TempDir; 2],
    }

    impl World {
        fn new(changes: &[&str]) -> World {
            let (text, data) = made_up_text(5);
            let mut run = tiny_run(data.digest());
            for change in changes {
                match *change {
                    "adamw" => (run.inner.optimizer, run.inner.momentum) = (Default::default(), None),
                    _ => (run.inner.optimizer, run.inner.momentum) = (covey_proto::run::Optimizer::Muon, Some(0.95)),
                }
            }
            run.inner.warmup_steps = 30;
            let backend = open_backend(&Device::Cpu { threads: 1 }, &run.model).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let disk = Disk::open(folder.path()).unwrap();
            World { run, data, backend, disk, journal: None, folders: [text, folder] }
        }

        /// A process begins.
        fn start(&self) -> Box<dyn Trainer> {
            let mut trainer = self.backend.trainer(self.run.inner.optimizer).unwrap();
            if let Some(journalled) = &self.journal {
                let elements = self.run.layout().elements();
                let restored = restore(&self.disk, journalled, elements, (&mut *trainer, "a miner")).unwrap();
                assert_eq!(restored, Restored::Whole);
            }
            trainer
        }

        /// The contribution of a round, in shards; `steps` ends the training early, as a kill does.
        fn train(&self, trainer: &mut dyn Trainer, round: Round, theta: &[f32], steps: u32) -> Option<Vec<Vec<u8>>> {
            trainer.load(&mut as_le_bytes(theta)).unwrap();
            let samples = self.data.samples(self.run.model.sequence);
            let mut samples = (0..).map(|sample| (sample + 97 * u64::from(round.0)) % samples);
            let batch = self.run.inner.batch as usize;
            let batches = |_| self.data.batch(&self.run.model, samples.by_ref().take(batch));
            let report = train_round(trainer, &self.run, round, batches, |step, _| step < steps).unwrap();
            if report.steps < self.run.inner.steps.count(round) as u32 {
                return None;
            }
            Some(trainer.contribute(theta, &self.how()).unwrap().shards)
        }

        fn how(&self) -> Compression {
            let compress = &self.run.compress;
            let shard_chunks = compress.shard_chunks as usize;
            Compression { beta: 0.95, k: 200, quantiser: compress.quantiser, shard_chunks }
        }

        /// Rounds of a miner alone that is killed as `kills` say; the contributions that it committed.
        fn mine(&mut self, kills: &[Kill]) -> Vec<Vec<Vec<u8>>> {
            let layout = self.run.layout();
            let mut theta = initial_state(&self.run.model).unwrap();
            let mut trainer = self.start();
            let mut sent = Vec::new();
            for (number, kill) in kills.iter().enumerate() {
                let (round, base) = (Round(number as u32), Digest::of(&[number as u8]));
                let mut kill = *kill;
                let shards = loop {
                    let steps = if kill == Kill::Training { 2 } else { u32::MAX };
                    let shards = self.train(&mut *trainer, round, &theta, steps);
                    if let (Some(shards), true) = (&shards, kill != Kill::BeforeSaving) {
                        save(&self.disk, round, base, &*trainer).unwrap();
                        if kill != Kill::BeforeJournal {
                            break shards.clone();
                        }
                    }
                    (trainer, kill) = (self.start(), Kill::Never);
                };
                self.journal = Some(JournalContribution { round, base, manifest: Digest::ZERO, call: None });
                if kill != Kill::AfterJournal {
                    trainer.keep_feedback();
                    self.disk.keep_only_training(Some(round)).unwrap();
                }
                if [Kill::AfterJournal, Kill::AfterAll].contains(&kill) {
                    trainer = self.start();
                }
                let how = self.how();
                let decode = |(shard, bytes): (usize, &Vec<u8>)| {
                    decode_shard(bytes, &layout, layout.shard(shard, how.shard_chunks), how.k, how.quantiser).unwrap()
                };
                let decoded: Vec<_> = shards.iter().enumerate().map(decode).collect();
                let step = covey_sparseloco::OuterStep { alpha: 1.0, rho: 1.0, reach: &[] };
                outer_step(&layout, &mut theta, &[decoded], step).unwrap();
                sent.push(shards);
            }
            sent
        }
    }

    /// Whenever it is killed, a miner sends the bytes that one sends which never was: moments, warm-up and feedback go on.
    #[test]
    fn who_is_killed_at_any_instant_sends_what_it_would_have_sent() {
        for optimizer in ["adamw", "muon"] {
            let calm = World::new(&[optimizer]).mine(&[Kill::Never; 7]);
            let every = [
                Kill::Training,
                Kill::BeforeSaving,
                Kill::BeforeJournal,
                Kill::AfterJournal,
                Kill::AfterAll,
                Kill::Training,
                Kill::BeforeJournal,
            ];
            let killed = World::new(&[optimizer]).mine(&every);
            let differs = calm.iter().zip(&killed).position(|(one, other)| one != other);
            assert_eq!(differs, None, "{optimizer}: the first contribution that differs");
        }
    }

    #[test]
    fn what_was_not_written_leaves_older_moments_and_damage_leaves_nothing() {
        let mut world = World::new(&["adamw"]);
        world.mine(&[Kill::Never; 2]);
        let elements = world.run.layout().elements();
        let mut trainer = world.backend.trainer(world.run.inner.optimizer).unwrap();
        let later = JournalContribution { round: Round(4), ..world.journal.clone().unwrap() };
        let mut found = |disk: &Disk, of: &JournalContribution| {
            let restored = restore(disk, of, elements, (&mut *trainer, "a miner")).unwrap();
            (restored, trainer.steps())
        };
        let steps = 2 * world.run.inner.steps.count(Round(0)) as u64;
        assert_eq!(found(&world.disk, &later), (Restored::Moments, steps));
        let of = world.journal.clone().unwrap();
        assert_eq!(found(&world.disk, &of), (Restored::Whole, steps));
        let path = world.folders[1].path().join("training-1.bin");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[44 + 4 * elements / 2] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(found(&world.disk, &of), (Restored::Nothing, 0), "a bit of the feedback has turned");
        world.disk.write_training(of.round, of.base, |file| file.write_all(&[0; 99])).unwrap();
        assert_eq!(found(&world.disk, &of), (Restored::Nothing, 0));
    }
}
