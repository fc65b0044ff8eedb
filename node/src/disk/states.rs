//! States on the disk: one after each round, the newest two. They are streamed: a state is in memory once at most, or, as
//! a [`StateFile`], not at all.

use super::{Disk, DiskError};
use covey_proto::{Digest, Round};
use covey_round::engine::Tip;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::PathBuf;

const STATE_MAGIC: &[u8; 8] = b"CVYFST01";
/// Magic, round, head, root; then the parameters as f32, little-endian.
const HEAD_BYTES: usize = 8 + 4 + 32 + 32;
/// "Before round 0", where a file has room for a round.
const NO_ROUND: u32 = u32::MAX;
/// States kept: the newest, and the one before it to recompute from when a majority disagrees.
const STATES_KEPT: usize = 2;

// Parameters are written as they lie in memory.
const _: () = assert!(cfg!(target_endian = "little"), "states are little-endian, and so must the machine be");

/// A state as the folder holds it.
pub struct SavedState {
    /// After which round, with which head.
    pub tip: Tip,
    /// The state root it had.
    pub root: Digest,
    /// The parameters, `[elements]`.
    pub parameters: Vec<f32>,
}

/// A state's file, open. It stays readable when the folder lets go of it: a round can be scored from it though later ones
/// have been applied. As a reader it gives the parameters, f32 little-endian.
#[derive(Debug)]
pub struct StateFile {
    tip: Tip,
    root: Digest,
    elements: usize,
    path: PathBuf,
    parameters: BufReader<File>,
}

impl StateFile {
    /// After which round, with which head.
    pub fn tip(&self) -> Tip {
        self.tip
    }

    /// The state root that it was saved with.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// Reads it into memory; none if a parameter is not finite, which no state's is.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn load(mut self) -> Result<Option<SavedState>, DiskError> {
        let mut parameters = vec![0.0f32; self.elements];
        let read = self.parameters.read_exact(bytemuck::cast_slice_mut(&mut parameters));
        read.map_err(|error| DiskError { path: self.path.clone(), error })?;
        let is_whole = parameters.iter().all(|value| value.is_finite());
        Ok(is_whole.then_some(SavedState { tip: self.tip, root: self.root, parameters }))
    }

    /// The first element that has other bits than in `other`, if any does.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn first_difference(&mut self, other: &[f32]) -> Result<Option<usize>, DiskError> {
        let mut block = vec![0.0f32; 1 << 16];
        for (number, expected) in other.chunks(block.len()).enumerate() {
            let mine = &mut block[..expected.len()];
            let read = self.parameters.read_exact(bytemuck::cast_slice_mut(mine));
            read.map_err(|error| DiskError { path: self.path.clone(), error })?;
            let differs = |(mine, expected): (&f32, &f32)| mine.to_bits() != expected.to_bits();
            if let Some(at) = mine.iter().zip(expected).position(differs) {
                return Ok(Some((number << 16) + at));
            }
        }
        Ok(None)
    }
}

impl Read for StateFile {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.parameters.read(out)
    }
}

impl Disk {
    /// Keeps a state, and forgets all but the newest two.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn write_state(&self, tip: &Tip, root: Digest, parameters: &[f32]) -> Result<(), DiskError> {
        let round = tip.round.map_or(NO_ROUND, |round| round.0);
        let head = [STATE_MAGIC.as_slice(), &round.to_le_bytes(), tip.head.as_bytes(), root.as_bytes()].concat();
        self.write_with(&state_name(tip.round), |file| {
            file.write_all(&head)?;
            file.write_all(bytemuck::cast_slice(parameters))
        })?;
        let mut kept = self.saved_rounds()?;
        // A resynchronised node may go back: the state just written stays, whatever its round.
        kept.retain(|round| *round != tip.round);
        while kept.len() >= STATES_KEPT {
            self.remove(&state_name(kept.remove(0)))?;
        }
        Ok(())
    }

    /// The newest state whose file is whole and whose parameters number `elements`.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn newest_state(&self, elements: usize) -> Result<Option<SavedState>, DiskError> {
        for round in self.saved_rounds()?.into_iter().rev() {
            match self.state(round, elements)? {
                Some(state) => return Ok(Some(state)),
                None => tracing::warn!(file = %self.path(&state_name(round)).display(), "not a state: passed over"),
            }
        }
        Ok(None)
    }

    /// The file of the newest state that is as long as one of `elements`, to be streamed.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn open_newest_state(&self, elements: usize) -> Result<Option<StateFile>, DiskError> {
        for round in self.saved_rounds()?.into_iter().rev() {
            if let Some(state) = self.open_state(round, elements)? {
                return Ok(Some(state));
            }
        }
        Ok(None)
    }

    /// The newest state that is whole and sound. Newer ones are damaged: they get out of the way as `NAME.damaged`.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn restore_state(
        &self,
        elements: usize,
        is_sound: impl Fn(&SavedState) -> bool,
    ) -> Result<Option<SavedState>, DiskError> {
        for round in self.saved_rounds()?.into_iter().rev() {
            if let Some(state) = self.state(round, elements)?.filter(&is_sound) {
                return Ok(Some(state));
            }
            let name = state_name(round);
            let aside = self.path(&format!("{name}.damaged"));
            tracing::error!(file = %self.path(&name).display(), aside = %aside.display(), "a saved state is damaged");
            fs::rename(self.path(&name), &aside).map_err(|error| DiskError { path: aside, error })?;
        }
        Ok(None)
    }

    /// The state after `round`, if its file is there and whole.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn state(&self, round: Option<Round>, elements: usize) -> Result<Option<SavedState>, DiskError> {
        self.open_state(round, elements)?.map_or(Ok(None), StateFile::load)
    }

    /// The file of the state after `round`, if it is there and as long as a state of `elements`.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn open_state(&self, round: Option<Round>, elements: usize) -> Result<Option<StateFile>, DiskError> {
        let name = state_name(round);
        let Some(mut parameters) = self.open_file(&name)? else { return Ok(None) };
        let path = self.path(&name);
        let fault = |error| DiskError { path: path.clone(), error };
        let bytes = parameters.get_ref().metadata().map_err(fault)?.len();
        let mut head = [0; HEAD_BYTES];
        if bytes != HEAD_BYTES as u64 + 4 * elements as u64 || parameters.read_exact(&mut head).is_err() {
            return Ok(None);
        }
        let Some((tip, root)) = parse_head(&head).filter(|(tip, _)| tip.round == round) else { return Ok(None) };
        Ok(Some(StateFile { tip, root, elements, path, parameters }))
    }

    /// Forgets every state of a round after `tip`'s.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn forget_states_after(&self, tip: &Tip) -> Result<(), DiskError> {
        for round in self.saved_rounds()? {
            if round > tip.round {
                self.remove(&state_name(round))?;
            }
        }
        Ok(())
    }

    fn saved_rounds(&self) -> Result<Vec<Option<Round>>, DiskError> {
        let fault = |error| DiskError { path: self.root.clone(), error };
        let mut rounds = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(fault)? {
            let name = entry.map_err(fault)?.file_name();
            let middle = name.to_str().and_then(|name| name.strip_prefix("state-")?.strip_suffix(".bin"));
            let round = match middle {
                Some("genesis") => Some(None),
                Some(number) => number.parse().ok().map(|number| Some(Round(number))),
                None => None,
            };
            // "state-07.bin" is not ours.
            rounds.extend(round.filter(|round| name.to_str() == Some(&state_name(*round))));
        }
        rounds.sort();
        Ok(rounds)
    }
}

fn state_name(round: Option<Round>) -> String {
    round.map_or_else(|| "state-genesis.bin".to_owned(), |round| format!("state-{round}.bin"))
}

fn parse_head(head: &[u8; HEAD_BYTES]) -> Option<(Tip, Digest)> {
    let fields = head.strip_prefix(STATE_MAGIC.as_slice())?;
    let (round, digests) = fields.split_first_chunk::<4>()?;
    let (head, root) = digests.split_at_checked(32)?;
    let round = Some(Round(u32::from_le_bytes(*round))).filter(|round| round.0 != NO_ROUND);
    Some((Tip { round, head: Digest::from_slice(head)? }, Digest::from_slice(root)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tip(round: Option<u32>) -> Tip {
        Tip { round: round.map(Round), head: Digest::of(b"head") }
    }

    #[test]
    fn the_newest_whole_state_is_found_and_two_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        for round in [None, Some(8), Some(9), Some(10)] {
            disk.write_state(&tip(round), Digest::of(b"root"), &[1.5, -2.0]).unwrap();
        }
        assert_eq!(disk.saved_rounds().unwrap(), [Some(Round(9)), Some(Round(10))]);
        fs::write(folder.path().join("state-10.bin"), b"CVYFST01 torn").unwrap();
        let state = disk.newest_state(2).unwrap().unwrap();
        assert_eq!((state.tip, state.parameters), (tip(Some(9)), vec![1.5, -2.0]));
        assert_eq!(disk.open_newest_state(2).unwrap().unwrap().tip(), tip(Some(9)));
        assert!(disk.open_newest_state(3).unwrap().is_none());
    }

    #[test]
    fn a_damaged_state_gets_out_of_the_way_and_the_one_before_it_counts() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let there = |name: &str| folder.path().join(name).exists();
        for round in [8, 9] {
            disk.write_state(&tip(Some(round)), Digest::of(&[round as u8]), &[1.5, -2.0]).unwrap();
        }
        let is_sound = |state: &SavedState| state.root == Digest::of(&[8]);
        let state = disk.restore_state(2, is_sound).unwrap().unwrap();
        assert_eq!(state.tip, tip(Some(8)));
        assert!(there("state-9.bin.damaged") && !there("state-9.bin"));
        // A copy under another round's name is not that round's state.
        fs::copy(folder.path().join("state-8.bin"), folder.path().join("state-10.bin")).unwrap();
        assert_eq!(disk.restore_state(2, is_sound).unwrap().unwrap().tip, tip(Some(8)));
        assert!(there("state-10.bin.damaged"));
        fs::write(folder.path().join("state-8.bin"), b"torn").unwrap();
        assert!(disk.restore_state(2, is_sound).unwrap().is_none(), "nothing is left but the beginning");
        assert!(there("state-8.bin.damaged"));
    }

    #[test]
    fn an_open_state_can_be_read_after_the_folder_has_let_go_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let theta: Vec<f32> = (0..100_000).map(|at| at as f32 - 0.5).collect();
        disk.write_state(&tip(Some(8)), Digest::of(b"root"), &theta).unwrap();
        let open = || disk.open_state(Some(Round(8)), theta.len()).unwrap().unwrap();
        let (mut to_compare, mut to_stream, to_read) = (open(), open(), open());
        assert!(disk.open_state(Some(Round(8)), theta.len() + 1).unwrap().is_none(), "another model's");
        disk.forget_states_after(&tip(None)).unwrap();
        assert!(disk.open_state(Some(Round(8)), theta.len()).unwrap().is_none());
        let mut other = theta.clone();
        other[70_000] = -other[70_000];
        assert_eq!(to_compare.first_difference(&other).unwrap(), Some(70_000));
        let mut bytes = Vec::new();
        to_stream.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, bytemuck::cast_slice::<f32, u8>(&theta));
        let state = to_read.load().unwrap().unwrap();
        assert_eq!((state.tip, state.root, state.parameters), (tip(Some(8)), Digest::of(b"root"), theta));
    }
}
