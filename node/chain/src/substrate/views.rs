//! Final blocks as they were read: each is read once, however many ask for it at the same time.

use super::header::{hexed, unhex};
use super::link::Link;
use super::metagraph::{self, MORE, Metagraph, PARTS};
use super::runtime::Runtime;
use super::witness::{Claim, Witness};
use crate::LedgerError;
use covey_proto::BlockNumber;
use covey_proto::Digest;
use covey_proto::chain::ChainView;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use subxt::rpcs::client::rpc_params;
use tokio::sync::OnceCell;

/// Views kept: three of a round, of a few rounds, and the newest final ones. 100 KB each with 256 members.
const VIEWS_MAX: usize = 16;

type Cell = Arc<OnceCell<Arc<ChainView>>>;

/// What is read of final blocks, and confirmed by a second endpoint.
pub(super) struct Views {
    link: Arc<Link>,
    witness: Arc<Witness>,
    read: Mutex<Recent>,
}

/// Views by block, the oldest use first: those that are there, and those that are being read.
#[derive(Default)]
struct Recent(VecDeque<(BlockNumber, Cell)>);

impl Recent {
    /// Where a block's view is or will be.
    fn cell(&mut self, block: BlockNumber) -> Cell {
        let known = self.0.iter().position(|(number, _)| *number == block).and_then(|at| self.0.remove(at));
        let (_, cell) = known.unwrap_or_else(|| (block, Cell::default()));
        self.0.push_back((block, cell.clone()));
        while self.0.len() > VIEWS_MAX {
            self.0.pop_front();
        }
        cell
    }
}

impl Views {
    pub(super) fn new(link: Arc<Link>, witness: Arc<Witness>) -> Views {
        Views { link, witness, read: Mutex::default() }
    }

    /// The subnet at a final block: two requests, or three where its hash is not known; none if it was read before.
    pub(super) async fn get(&self, block: BlockNumber) -> Result<Arc<ChainView>, LedgerError> {
        let link = &self.link;
        link.agreed()?;
        let cell = self.read.lock().unwrap_or_else(PoisonError::into_inner).cell(block);
        let view = cell.get_or_try_init(|| async {
            let hash = link.final_hash(block).await?;
            let parts: Vec<u16> = PARTS.iter().map(|part| part.0).collect();
            let (runtime, bytes) = self.selective(block, hash, parts).await?;
            let view = metagraph::view(&runtime, link.settings.netuid, block, hash, &bytes);
            Ok(Arc::new(view?))
        });
        view.await.cloned()
    }

    /// A subnet with more of its members than a round needs.
    pub(super) async fn metagraph(&self, block: BlockNumber) -> Result<Metagraph, LedgerError> {
        let link = &self.link;
        link.agreed()?;
        let hash = link.final_hash(block).await?;
        let parts = PARTS.iter().filter(|part| part.1 != "commitments").chain(&MORE).map(|part| part.0).collect();
        let (runtime, bytes) = self.selective(block, hash, parts).await?;
        Ok(metagraph::metagraph(&runtime, link.settings.netuid, block, hash, &bytes)?)
    }

    /// Parts of the metagraph as bytes, and the runtime that encoded them.
    async fn selective(
        &self,
        block: BlockNumber,
        hash: Digest,
        parts: Vec<u16>,
    ) -> Result<(Arc<Runtime>, Vec<u8>), LedgerError> {
        let link = &self.link;
        let newest = link.runtime().await?;
        let (name, arguments) = newest.api(metagraph::API, metagraph::METHOD, (link.settings.netuid, parts))?;
        let arguments = hexed(arguments);
        let params = rpc_params![&name, &arguments, hexed(hash.as_bytes())];
        let answer = async {
            link.ask_at::<String>(block, "state_call", params).await.map_err(|failure| link.no_state(block, failure))
        };
        let (runtime, answer) = futures::try_join!(link.runtime_at(hash, block), answer)?;
        let claim = Claim { block, hash, method: &name, arguments: &arguments, answer: &answer };
        self.witness.confirm(claim).await?;
        let bytes = unhex(&answer).ok_or_else(|| LedgerError::Unreachable("the metagraph is no bytes".into()))?;
        Ok((runtime, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_the_same_block_waits_for_the_same_answer_and_what_is_used_stays() {
        let mut recent = Recent::default();
        let first = recent.cell(BlockNumber(0));
        for block in 1..100 {
            recent.cell(BlockNumber(block));
            assert!(Arc::ptr_eq(&recent.cell(BlockNumber(0)), &first), "it is used at every block");
        }
        assert_eq!(recent.0.len(), VIEWS_MAX);
        assert!(recent.0.iter().any(|(block, _)| block.0 == 99) && recent.0.iter().all(|(block, _)| block.0 != 1));
    }
}
