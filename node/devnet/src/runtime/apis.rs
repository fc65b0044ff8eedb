//! Runtime APIs: what `state_call` answers.

use super::*;
use crate::pallets::subtensor::info::{Metagraph, NeuronInfoLite, SelectiveMetagraph, StakeInfo};
use crate::pallets::subtensor::types::{SimSwapResult, SubnetHyperparamsV2};
use pallet_transaction_payment::{FeeDetails, RuntimeDispatchInfo};
use sp_core::OpaqueMetadata;
use sp_inherents::InherentData;
use sp_runtime::ApplyExtrinsicResult;
use sp_runtime::transaction_validity::{TransactionSource, TransactionValidity};

/// Ids and versions of the APIs.
pub const VERSIONS: sp_version::ApisVec = RUNTIME_API_VERSIONS;

sp_api::decl_runtime_apis! {
    /// Subnets and their members.
    pub trait SubnetInfoRuntimeApi {
        /// A subnet with all its members.
        fn get_metagraph(netuid: u16) -> Option<Metagraph>;
        /// The same for a mechanism.
        fn get_mechagraph(netuid: u16, mecid: u8) -> Option<Metagraph>;
        /// All subnets.
        fn get_all_metagraphs() -> Vec<Option<Metagraph>>;
        /// The parts of it with these numbers.
        fn get_selective_metagraph(netuid: u16, metagraph_indexes: Vec<u16>) -> Option<SelectiveMetagraph>;
        /// The same for a mechanism.
        fn get_selective_mechagraph(netuid: u16, subid: u8, metagraph_indexes: Vec<u16>) -> Option<SelectiveMetagraph>;
        /// What its owner has set.
        fn get_subnet_hyperparams_v2(netuid: u16) -> Option<SubnetHyperparamsV2>;
        /// The next block in which its epoch runs; only where epochs are remembered.
        fn get_next_epoch_start_block(netuid: u16) -> Option<u64>;
    }

    /// Members without weights and bonds.
    pub trait NeuronInfoRuntimeApi {
        /// All of a subnet, by uid.
        fn get_neurons_lite(netuid: u16) -> Vec<NeuronInfoLite>;
        /// One of them.
        fn get_neuron_lite(netuid: u16, uid: u16) -> Option<NeuronInfoLite>;
    }

    /// Who has staked what.
    pub trait StakeInfoRuntimeApi {
        /// All that a coldkey has staked.
        fn get_stake_info_for_coldkey(coldkey_account: AccountId32) -> Vec<StakeInfo>;
    }

    /// Prices: one alpha is one TAO here.
    pub trait SwapRuntimeApi {
        /// Rao of an alpha.
        fn current_alpha_price(netuid: u16) -> u64;
        /// What TAO would buy.
        fn sim_swap_tao_for_alpha(netuid: u16, tao: u64) -> SimSwapResult;
        /// What alpha would sell for.
        fn sim_swap_alpha_for_tao(netuid: u16, alpha: u64) -> SimSwapResult;
    }
}

sp_api::impl_runtime_apis! {
    impl sp_api::Core<Block> for Runtime {
        fn version() -> sp_version::RuntimeVersion {
            VERSION
        }

        fn execute_block(block: <Block as sp_runtime::traits::Block>::LazyBlock) {
            Executive::execute_block(block);
        }

        fn initialize_block(header: &Header) -> sp_runtime::ExtrinsicInclusionMode {
            Executive::initialize_block(header)
        }
    }

    impl sp_api::Metadata<Block> for Runtime {
        fn metadata() -> OpaqueMetadata {
            metadata::at_version(14).unwrap_or_else(|| OpaqueMetadata::new(Vec::new()))
        }

        fn metadata_at_version(version: u32) -> Option<OpaqueMetadata> {
            metadata::at_version(version)
        }

        fn metadata_versions() -> Vec<u32> {
            metadata::VERSIONS.to_vec()
        }
    }

    impl sp_block_builder::BlockBuilder<Block> for Runtime {
        fn apply_extrinsic(extrinsic: UncheckedExtrinsic) -> ApplyExtrinsicResult {
            Executive::apply_extrinsic(extrinsic)
        }

        fn finalize_block() -> Header {
            Executive::finalize_block()
        }

        fn inherent_extrinsics(data: InherentData) -> Vec<UncheckedExtrinsic> {
            data.create_extrinsics()
        }

        fn check_inherents(
            block: <Block as sp_runtime::traits::Block>::LazyBlock,
            data: InherentData,
        ) -> sp_inherents::CheckInherentsResult {
            data.check_extrinsics(&block)
        }
    }

    impl sp_transaction_pool::runtime_api::TaggedTransactionQueue<Block> for Runtime {
        fn validate_transaction(
            source: TransactionSource,
            tx: UncheckedExtrinsic,
            block_hash: H256,
        ) -> TransactionValidity {
            Executive::validate_transaction(source, tx, block_hash)
        }
    }

    impl frame_system_rpc_runtime_api::AccountNonceApi<Block, AccountId32, u32> for Runtime {
        fn account_nonce(account: AccountId32) -> u32 {
            System::account_nonce(account)
        }
    }

    impl pallet_transaction_payment_rpc_runtime_api::TransactionPaymentApi<Block, Balance> for Runtime {
        fn query_info(uxt: UncheckedExtrinsic, len: u32) -> RuntimeDispatchInfo<Balance> {
            TransactionPayment::query_info(uxt, len)
        }

        fn query_fee_details(uxt: UncheckedExtrinsic, len: u32) -> FeeDetails<Balance> {
            TransactionPayment::query_fee_details(uxt, len)
        }

        fn query_weight_to_fee(weight: Weight) -> Balance {
            TransactionPayment::weight_to_fee(weight)
        }

        fn query_length_to_fee(length: u32) -> Balance {
            TransactionPayment::length_to_fee(length)
        }
    }

    impl pallet_transaction_payment_rpc_runtime_api::TransactionPaymentCallApi<Block, Balance, RuntimeCall> for Runtime {
        fn query_call_info(call: RuntimeCall, len: u32) -> RuntimeDispatchInfo<Balance> {
            TransactionPayment::query_call_info(call, len)
        }

        fn query_call_fee_details(call: RuntimeCall, len: u32) -> FeeDetails<Balance> {
            TransactionPayment::query_call_fee_details(call, len)
        }

        fn query_weight_to_fee(weight: Weight) -> Balance {
            TransactionPayment::weight_to_fee(weight)
        }

        fn query_length_to_fee(length: u32) -> Balance {
            TransactionPayment::length_to_fee(length)
        }
    }

    impl self::SubnetInfoRuntimeApi<Block> for Runtime {
        fn get_metagraph(netuid: u16) -> Option<Metagraph> {
            SubtensorModule::metagraph(netuid, 0)
        }

        fn get_mechagraph(netuid: u16, mecid: u8) -> Option<Metagraph> {
            SubtensorModule::metagraph(netuid, mecid)
        }

        fn get_all_metagraphs() -> Vec<Option<Metagraph>> {
            SubtensorModule::subnets().into_iter().map(|netuid| SubtensorModule::metagraph(netuid, 0)).collect()
        }

        fn get_selective_metagraph(netuid: u16, metagraph_indexes: Vec<u16>) -> Option<SelectiveMetagraph> {
            SubtensorModule::selective_metagraph(netuid, 0, &metagraph_indexes)
        }

        fn get_selective_mechagraph(netuid: u16, subid: u8, metagraph_indexes: Vec<u16>) -> Option<SelectiveMetagraph> {
            SubtensorModule::selective_metagraph(netuid, subid, &metagraph_indexes)
        }

        fn get_subnet_hyperparams_v2(netuid: u16) -> Option<SubnetHyperparamsV2> {
            SubtensorModule::hyperparams(netuid)
        }

        fn get_next_epoch_start_block(netuid: u16) -> Option<u64> {
            subtensor::NetworksAdded::<Runtime>::get(netuid)
                .then(|| SubtensorModule::schedule(netuid).next_after(SubtensorModule::now()))
        }
    }

    impl self::NeuronInfoRuntimeApi<Block> for Runtime {
        fn get_neurons_lite(netuid: u16) -> Vec<NeuronInfoLite> {
            SubtensorModule::neurons_lite(netuid)
        }

        fn get_neuron_lite(netuid: u16, uid: u16) -> Option<NeuronInfoLite> {
            SubtensorModule::neurons_lite(netuid).into_iter().nth(usize::from(uid))
        }
    }

    impl self::StakeInfoRuntimeApi<Block> for Runtime {
        fn get_stake_info_for_coldkey(coldkey_account: AccountId32) -> Vec<StakeInfo> {
            SubtensorModule::stake_of_coldkey(&coldkey_account)
        }
    }

    impl self::SwapRuntimeApi<Block> for Runtime {
        fn current_alpha_price(_: u16) -> u64 {
            subtensor::ALPHA_PRICE
        }

        fn sim_swap_tao_for_alpha(_: u16, tao: u64) -> SimSwapResult {
            SimSwapResult { tao_amount: tao, alpha_amount: tao, ..Default::default() }
        }

        fn sim_swap_alpha_for_tao(_: u16, alpha: u64) -> SimSwapResult {
            SimSwapResult { tao_amount: alpha, alpha_amount: alpha, ..Default::default() }
        }
    }
}
