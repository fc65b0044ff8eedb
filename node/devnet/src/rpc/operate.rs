//! `covey_`: what no real node has: blocks on demand, and faults.

use super::{Context, RpcError, method};
use crate::chain::{Chain, ChainBlock};
use jsonrpsee::RpcModule;
use jsonrpsee::core::RegisterMethodError;
use serde::{Deserialize, Serialize};
use sp_core::H256;
use sp_runtime::traits::Header as _;
use std::time::Duration;

/// Blocks that one request may ask for.
const BLOCKS_MAX: u32 = 10_000;

/// A block that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockInfo {
    /// Its number.
    pub number: u32,
    /// Its hash.
    pub hash: H256,
    /// Transactions in it, the timestamp not among them.
    pub transactions: usize,
}

impl From<&ChainBlock> for BlockInfo {
    fn from(sealed: &ChainBlock) -> Self {
        let transactions = sealed.body.len().saturating_sub(1);
        Self { number: *sealed.header.number(), hash: sealed.hash, transactions }
    }
}

/// How far the chain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heads {
    /// The newest block.
    pub best: BlockInfo,
    /// The newest final one.
    pub finalised: BlockInfo,
}

impl From<&Chain> for Heads {
    fn from(chain: &Chain) -> Self {
        Self { best: (&**chain.best()).into(), finalised: (&**chain.finalised()).into() }
    }
}

pub(super) fn register(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    method(module, "covey_heads", |_, context| Ok(Heads::from(&*context.chain())))?;
    method(module, "covey_makeBlock", |args, context| {
        let count = args.optional::<u32>(0)?.unwrap_or(1);
        if count == 0 || count > BLOCKS_MAX {
            return Err(RpcError::Params(format!("{count} blocks: 1 to {BLOCKS_MAX} a request")));
        }
        let mut last = None;
        for _ in 0..count {
            last = Some(BlockInfo::from(&*context.chain().make_block()?));
        }
        Ok(last)
    })?;
    method(module, "covey_faultReorganise", |args, context| {
        let lost = args.optional(1)?.unwrap_or(false);
        let blocks = context.chain().reorganise(args.get(0)?, lost)?;
        Ok(blocks.iter().map(|sealed| BlockInfo::from(&**sealed)).collect::<Vec<_>>())
    })?;
    method(module, "covey_faultStallBlocks", |args, context| {
        context.faults.stall(args.get(0)?);
        Ok(())
    })?;
    method(module, "covey_faultStallFinality", |args, context| {
        context.chain().finality_stalled = args.get(0)?;
        Ok(())
    })?;
    method(module, "covey_faultDropConnections", |_, context| {
        context.faults.drop_connections();
        Ok(())
    })?;
    method(module, "covey_faultDropConnectionsEvery", |args, context| {
        let milliseconds: u64 = args.get(0)?;
        context.faults.drop_every((milliseconds > 0).then(|| Duration::from_millis(milliseconds)));
        Ok(())
    })?;
    method(module, "covey_faultRefuseConnections", |args, context| {
        context.faults.refuse(args.get(0)?);
        Ok(())
    })
}
