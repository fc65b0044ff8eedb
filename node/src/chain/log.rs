//! What an in-memory chain did, as a file: a line a block. Who has the file can do every block again and check every
//! signature, hash and commitment of it; an audit does.

use super::SignedCall;
use super::memory::{Block, Genesis, MemoryLedger};
use covey_proto::chain::Member;
use covey_proto::{BlockNumber, Digest, Hotkey, Uid};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// Bytes of the longest line read: 4,096 calls of some 500 hexadecimal digits.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why a log cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system refuses.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it says.
        error: std::io::Error,
    },
    /// A line that is no block, or does not follow.
    #[error("{path}, line {line}: {what}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenesisLine {
    nonce: u64,
    netuid: u16,
    finality_lag: u32,
    members: Vec<MemberLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberLine {
    uid: Uid,
    hotkey: Digest,
    registered_at: BlockNumber,
    permit: bool,
    stake: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockLine {
    number: BlockNumber,
    hash: Digest,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    calls: Vec<String>,
}

/// Writes blocks to a file as they are made.
pub struct ChainLog {
    path: PathBuf,
    file: File,
}

impl ChainLog {
    /// Starts a file with the chain's genesis.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path, genesis: &Genesis) -> Result<ChainLog, LogError> {
        let file = File::create(path).map_err(|error| LogError::Io { path: path.to_owned(), error })?;
        let mut log = ChainLog { path: path.to_owned(), file };
        let member = |member: &Member| MemberLine {
            uid: member.uid,
            hotkey: Digest::new(*member.hotkey.as_bytes()),
            registered_at: member.registered_at,
            permit: member.permit,
            stake: member.stake,
        };
        log.line(&GenesisLine {
            nonce: genesis.nonce,
            netuid: genesis.netuid,
            finality_lag: genesis.finality_lag,
            members: genesis.members.iter().map(member).collect(),
        })?;
        Ok(log)
    }

    /// Adds a block.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&mut self, block: &Block) -> Result<(), LogError> {
        let calls = block.calls.iter().map(|call| hex::encode(&call.0)).collect();
        self.line(&BlockLine { number: block.number, hash: block.hash, calls })
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), LogError> {
        let mut line = serde_json::to_vec(value).expect("numbers and texts have a JSON form");
        line.push(b'\n');
        self.file.write_all(&line).map_err(|error| LogError::Io { path: self.path.clone(), error })
    }
}

/// Does every block of a log again, calling `each` with the chain after it. A last line without its end is a torn
/// write and is left out.
///
/// # Errors
/// The file cannot be read, a line is no block, or a block does not follow from those before it.
pub fn replay<E: From<LogError>>(
    path: &Path,
    mut each: impl FnMut(&MemoryLedger, BlockNumber) -> Result<(), E>,
) -> Result<MemoryLedger, E> {
    let io = |error| LogError::Io { path: path.to_owned(), error };
    let mut reader = BufReader::new(File::open(path).map_err(io)?);
    let mut number = 0;
    let mut buffer = Vec::new();
    let mut next = |buffer: &mut Vec<u8>| -> Result<bool, LogError> {
        buffer.clear();
        std::io::Read::take(&mut reader, LINE_BYTES_MAX as u64).read_until(b'\n', buffer).map_err(io)?;
        Ok(buffer.ends_with(b"\n"))
    };
    let fault = |line: usize, what: String| LogError::Line { path: path.to_owned(), line, what };
    if !next(&mut buffer)? {
        return Err(fault(1, "no genesis: the file is empty or cut off".into()).into());
    }
    let genesis: GenesisLine = serde_json::from_slice(&buffer).map_err(|error| fault(1, error.to_string()))?;
    let member = |member: MemberLine| Member {
        uid: member.uid,
        hotkey: Hotkey::new(*member.hotkey.as_bytes()),
        registered_at: member.registered_at,
        permit: member.permit,
        stake: member.stake,
    };
    let ledger = MemoryLedger::new(Genesis {
        nonce: genesis.nonce,
        netuid: genesis.netuid,
        finality_lag: genesis.finality_lag,
        members: genesis.members.into_iter().map(member).collect(),
    });
    while next(&mut buffer)? {
        number += 1;
        let block: BlockLine = serde_json::from_slice(&buffer).map_err(|error| fault(number + 1, error.to_string()))?;
        let calls = block.calls.iter().map(|call| hex::decode(call).map(SignedCall)).collect::<Result<Vec<_>, _>>();
        let calls = calls.map_err(|error| fault(number + 1, error.to_string()))?;
        let block = Block { number: block.number, hash: block.hash, calls };
        ledger.replay(&block).map_err(|error| fault(number + 1, error.to_string()))?;
        each(&ledger, block.number)?;
    }
    Ok(ledger)
}
