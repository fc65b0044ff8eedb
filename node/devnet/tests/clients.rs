//! A running devnet asked over its socket, in raw JSON-RPC, by transactions signed by hand.

#![allow(clippy::unwrap_used)] // Tests stop where something is not as they say.

mod common;

use codec::{Decode, Encode};
use common::*;
use covey_devnet::Config;
use covey_devnet::pallets::commitments::Registration;
use covey_devnet::pallets::subtensor::{Call, WeightsPayload};
use covey_devnet::runtime::{Runtime, RuntimeCall};
use covey_timelock as timelock;
use frame_support::{BoundedVec, StorageHasher, Twox64Concat};
use jsonrpsee::core::client::SubscriptionClientT;
use jsonrpsee::ws_client::WsClientBuilder;
use serde_json::{Value, json};
use sp_runtime::generic::Era;

fn map(pallet: &str, item: &str, keys: &[Vec<u8>]) -> Vec<u8> {
    let prefix = frame_support::storage::storage_prefix(pallet.as_bytes(), item.as_bytes()).to_vec();
    [prefix, keys.concat()].concat()
}

fn slot(netuid: u16, uri: &str) -> Vec<u8> {
    map("Commitments", "CommitmentOf", &[netuid.encode(), Twox64Concat::hash(&account(uri).encode())])
}

fn row(index: u16, uid: u16) -> Vec<u8> {
    map("SubtensorModule", "Weights", &[index.encode(), uid.encode()])
}

fn weights(uids: &[u16], values: &[u16]) -> Call<Runtime> {
    Call::set_weights { netuid: OPEN, dests: uids.to_vec(), weights: values.to_vec(), version_key: 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_of_the_metadata_is_there_and_has_a_real_nodes_paths() {
    let world = world().await;
    for version in 14_u32..=16 {
        let args = json!(["Metadata_metadata_at_version", hexed(version.encode())]);
        let answer = world.ask("state_call", args).await;
        let bytes = hex::decode(&answer.as_str().unwrap()[2..]).unwrap();
        let opaque = Option::<Vec<u8>>::decode(&mut &bytes[..]).unwrap().unwrap();
        assert_eq!(&opaque[..5], [b"meta", &[version as u8][..]].concat());
        let text = String::from_utf8_lossy(&opaque);
        assert!(text.contains("node_subtensor_runtime") && !text.contains("covey_devnet"), "V{version}");
    }
    let plain = world.ask("state_getMetadata", json!([])).await;
    assert!(plain.as_str().unwrap().starts_with("0x6d6574610e"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_runtime_api_is_refused_in_the_words_that_clients_look_for() {
    let world = world().await;
    let (_, why) = refused(world.client(), "state_call", json!(["Nothing_here", "0x"])).await;
    assert!(why.contains("Exported method Nothing_here is not found"), "{why}");
    let (_, why) = refused(world.client(), "state_call", json!(["AccountNonceApi_account_nonce", "0x00"])).await;
    assert!(why.contains("panicked"), "{why}");
    assert_eq!(world.ask("chain_getHeader", json!([])).await["number"], "0x0", "it goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hotkey_without_funds_commits_and_everybody_reads_it() {
    let world = world().await;
    let bytes = world.signed("//Charlie//hotkey", commit(OPEN, b"first"));
    let params = json!([hexed(&bytes)]);
    let mut watch =
        subscribe(world.client(), "author_submitAndWatchExtrinsic", params, "author_unwatchExtrinsic").await;
    assert_eq!(watch.next().await.unwrap().unwrap(), "ready");
    let made = world.ask("covey_makeBlock", json!([])).await;
    assert_eq!(made["transactions"], 1);
    assert_eq!(watch.next().await.unwrap().unwrap()["inBlock"], made["hash"]);
    assert!(world.events().contains("Commitment { netuid: 2"), "{}", world.events());
    let value = world.ask("state_getStorage", json!([hexed(slot(OPEN, "//Charlie//hotkey"))])).await;
    let value = hex::decode(&value.as_str().unwrap()[2..]).unwrap();
    let stored = Registration::decode(&mut &value[..]).unwrap();
    assert_eq!((stored.block, stored.info.encode()), (1, [&[4, 6][..], b"first"].concat()));
    world.ask("covey_makeBlock", json!([2])).await;
    assert_eq!(watch.next().await.unwrap().unwrap()["finalized"], made["hash"]);
    // The round's reader asks once for everything: part 73 of the metagraph.
    let args = (OPEN, vec![7_u16, 52, 73]).encode();
    let answer = world.ask("state_call", json!(["SubnetInfoRuntimeApi_get_selective_metagraph", hexed(args)])).await;
    assert!(answer.as_str().unwrap().contains(&hex::encode(account("//Charlie//hotkey").encode())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commitment_takes_space_until_the_next_epoch() {
    let world =
        world_of(Config { chain: covey_devnet::ChainSpec { max_space: 250, ..spec() }, ..Config::default() }).await;
    for expected in [true, true, false] {
        world.submit(&world.signed("//Bob//hotkey", commit(OPEN, &[7; 44]))).await;
        world.ask("covey_makeBlock", json!([])).await;
        assert_eq!(world.events().contains("Commitment {"), expected, "{}", world.events());
    }
    world.ask("covey_makeBlock", json!([10])).await;
    world.submit(&world.signed("//Bob//hotkey", commit(OPEN, &[7; 44]))).await;
    world.ask("covey_makeBlock", json!([])).await;
    assert!(world.events().contains("Commitment {"), "{}", world.events());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_refuses_with_a_real_nodes_numbers() {
    let world = world().await;
    let sign = |uri: &str, call: RuntimeCall, nonce| world.sign(uri, call, nonce, Era::Immortal);
    let first = sign("//Alice", transfer("//Eve", 1_000_000), 0);
    world.submit(&first).await;
    assert_eq!(world.refused(&first).await.0, 1013, "it waits already");
    assert_eq!(world.refused(&sign("//Alice", transfer("//Eve", 1_000_001), 0)).await.0, 1014, "its nonce is taken");
    world.ask("covey_makeBlock", json!([])).await;
    assert_eq!(world.refused(&first).await, (1010, "Transaction is outdated".into()));
    let unfunded = sign("//Eve//hotkey", transfer("//Alice", 1), 0);
    let (code, why) = world.refused(&unfunded).await;
    assert_eq!(code, 1010);
    assert!(why.contains("Inability to pay some fees"), "{why}");
    let mut forged = sign("//Bob", transfer("//Eve", 1_000_000), 0);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(world.refused(&forged).await, (1010, "Transaction has a bad signature".into()));
    let (code, why) = world.refused(&[1, 2, 3]).await;
    assert_eq!((code, why.starts_with("Extrinsic has invalid format")), (1001, true), "{why}");
    let stranger = sign("//Eve//hotkey", weights(&[0], &[1]).into(), 0);
    assert_eq!(world.refused(&stranger).await, (1010, "Custom error: 19".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn nonces_wait_for_those_before_them() {
    let world = world().await;
    let sign = |nonce| world.sign("//Alice", transfer("//Eve", 1_000_000), nonce, Era::Immortal);
    for nonce in [2, 1] {
        world.submit(&sign(nonce)).await;
    }
    assert_eq!(world.ask("covey_makeBlock", json!([])).await["transactions"], 0);
    world.submit(&sign(0)).await;
    let address = sp_core::crypto::Ss58Codec::to_ss58check(&account("//Alice"));
    assert_eq!(world.ask("system_accountNextIndex", json!([address])).await, 3);
    assert_eq!(world.ask("covey_makeBlock", json!([])).await["transactions"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mortal_transaction_dies() {
    let world = world().await;
    world.ask("covey_makeBlock", json!([])).await;
    let mortal = world.sign("//Alice", transfer("//Eve", 1_000_000), 0, Era::mortal(4, 1));
    // It waits in the pool for a nonce that does not come, and is thrown out when its time is over.
    let waiting = world.sign("//Alice", transfer("//Eve", 1_000_000), 1, Era::mortal(4, 1));
    let params = json!([hexed(&waiting)]);
    let mut watch =
        subscribe(world.client(), "author_submitAndWatchExtrinsic", params, "author_unwatchExtrinsic").await;
    assert_eq!(watch.next().await.unwrap().unwrap(), "future");
    world.ask("covey_makeBlock", json!([5])).await;
    assert_eq!(watch.next().await.unwrap().unwrap(), "invalid");
    // An era names its first block by a remainder: later, that is another block, which was not signed.
    assert_eq!(world.refused(&mortal).await, (1010, "Transaction has a bad signature".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_in_the_open_are_held_to_the_rules() {
    let world = world().await;
    world.ask("covey_makeBlock", json!([])).await;
    world.submit(&world.signed("//Alice//hotkey", weights(&[0, 2], &[1, 2]))).await;
    world.ask("covey_makeBlock", json!([])).await;
    assert_eq!(world.read::<Vec<(u16, u16)>>(&row(OPEN, 0)), Some(vec![(0, 32_767), (2, u16::MAX)]));
    let early = world.signed("//Alice//hotkey", weights(&[1], &[1]));
    assert_eq!(world.refused(&early).await, (1010, "Custom error: 6".into()), "the rate limit");
    world.submit(&world.signed("//Charlie//hotkey", weights(&[1], &[1]))).await;
    world.ask("covey_makeBlock", json!([])).await;
    assert!(world.events().contains("NeuronNoValidatorPermit") || world.events().contains("ExtrinsicFailed"));
    assert_eq!(world.read::<Vec<(u16, u16)>>(&row(OPEN, 2)), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn timelocked_weights_are_opened_by_the_chain() {
    let world = world().await;
    world.ask("covey_makeBlock", json!([])).await;
    let payload =
        WeightsPayload { hotkey: account("//Bob//hotkey").encode(), uids: vec![2], values: vec![9], version_key: 0 };
    let public = timelock::public_key(&timelock::secret(&spec().beacon_seed));
    // Slots of 12 s and rounds of 3 s: round 20 comes in block 5, before the epoch that opens it.
    let sealed = timelock::lock(&public, 20, &payload.encode(), &[3; 32]).unwrap();
    let call = Call::<Runtime>::commit_timelocked_weights {
        netuid: HIDDEN,
        commit: BoundedVec::truncate_from(sealed),
        reveal_round: 20,
        commit_reveal_version: 4,
    };
    world.submit(&world.signed("//Bob//hotkey", call)).await;
    world.ask("covey_makeBlock", json!([])).await;
    assert!(world.events().contains("TimelockedWeightsCommitted"), "{}", world.events());
    let mut opened = None;
    for _ in 0..25 {
        world.ask("covey_makeBlock", json!([])).await;
        if world.events().contains("TimelockedWeightsRevealed") {
            opened = world.read::<Vec<(u16, u16)>>(&row(HIDDEN, 1));
            break;
        }
    }
    assert_eq!(opened, Some(vec![(2, u16::MAX)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganisation_is_told_to_all_and_loses_nothing() {
    let world = world_of(Config { chain: spec(), finality_lag: 5, ..Config::default() }).await;
    world.ask("covey_makeBlock", json!([3])).await;
    let mut follow = subscribe(world.client(), "chainHead_v1_follow", json!([false]), "chainHead_v1_unfollow").await;
    let mut heads = subscribe(world.client(), "chain_subscribeNewHeads", json!([]), "chain_unsubscribeNewHeads").await;
    let bytes = world.signed("//Bob//hotkey", commit(OPEN, b"kept"));
    let mut watch = subscribe(
        world.client(),
        "transactionWatch_v1_submitAndWatch",
        json!([hexed(&bytes)]),
        "transactionWatch_v1_unwatch",
    )
    .await;
    world.ask("covey_makeBlock", json!([3])).await;
    let before = world.ask("chain_getBlockHash", json!([4])).await;
    let (code, _) = refused(world.client(), "covey_faultReorganise", json!([6])).await;
    assert_eq!(code, -32_000, "block 1 is final");
    let made = world.ask("covey_faultReorganise", json!([3])).await;
    assert_eq!(made.as_array().unwrap().len(), 4);
    assert_ne!(world.ask("chain_getBlockHash", json!([4])).await, before);
    assert!(!world.ask("state_getStorage", json!([hexed(slot(OPEN, "//Bob//hotkey")), before])).await.is_null());
    world.ask("covey_makeBlock", json!([6])).await;
    let mut seen = Vec::new();
    loop {
        let event = watch.next().await.unwrap().unwrap();
        let name = event["event"].as_str().unwrap().to_owned();
        seen.push(if event["block"].is_null() && name != "validated" { "retracted".into() } else { name });
        if seen.last().is_some_and(|last| last == "finalized") {
            break;
        }
    }
    // Validated once more because the transaction is back in the pool.
    assert_eq!(
        seen,
        ["validated", "bestChainBlockIncluded", "retracted", "validated", "bestChainBlockIncluded", "finalized"]
    );
    let mut numbers = Vec::new();
    while numbers.len() < 8 {
        numbers.push(heads.next().await.unwrap().unwrap()["number"].as_str().unwrap().to_owned());
    }
    assert_eq!(numbers, ["0x3", "0x4", "0x5", "0x6", "0x4", "0x5", "0x6", "0x7"]);
    let mut final_blocks = Vec::new();
    while final_blocks.len() < 7 {
        let event = follow.next().await.unwrap().unwrap();
        if event["event"] == "finalized" {
            final_blocks.extend(event["finalizedBlockHashes"].as_array().unwrap().clone());
        }
    }
    for (number, hash) in (1..).zip(&final_blocks) {
        assert_eq!(&world.ask("chain_getBlockHash", json!([number])).await, hash, "block {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_states_are_discarded_and_old_blocks_are_not() {
    let world = world().await;
    world.ask("covey_makeBlock", json!([300])).await;
    let old = world.ask("chain_getBlockHash", json!([10])).await;
    let kept = world.ask("chain_getBlockHash", json!([60])).await;
    let key = hexed(frame_support::storage::storage_prefix(b"System", b"Number"));
    assert_eq!(world.ask("state_getStorage", json!([key, kept])).await, "0x3c000000");
    let (code, why) = refused(world.client(), "state_getStorage", json!([key, old])).await;
    assert_eq!(code, 4003);
    assert!(why.contains(&format!("State already discarded for {}", old.as_str().unwrap())), "{why}");
    assert_eq!(world.ask("chain_getHeader", json!([old])).await["number"], "0xa");
    let (_, why) = refused(world.client(), "state_getStorage", json!([key, hexed([9; 32])])).await;
    assert!(why.contains("Header was not found"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_a_reorganisation_loses_is_dropped_and_can_be_sent_again() {
    let world = world_of(Config { chain: spec(), finality_lag: 5, ..Config::default() }).await;
    let bytes = world.signed("//Bob//hotkey", commit(OPEN, b"lost"));
    let params = json!([hexed(&bytes)]);
    let mut watch =
        subscribe(world.client(), "author_submitAndWatchExtrinsic", params, "author_unwatchExtrinsic").await;
    world.ask("covey_makeBlock", json!([])).await;
    world.ask("covey_faultReorganise", json!([1, true])).await;
    let mut seen = Vec::new();
    while seen.last() != Some(&Value::from("dropped")) {
        seen.push(watch.next().await.unwrap().unwrap());
    }
    assert_eq!((seen.len(), seen[2]["retracted"].is_string()), (4, true), "{seen:?}");
    assert!(world.ask("state_getStorage", json!([hexed(slot(OPEN, "//Bob//hotkey"))])).await.is_null());
    world.submit(&bytes).await;
    assert_eq!(world.ask("covey_makeBlock", json!([])).await["transactions"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_one_encoding_of_a_transaction_is_none() {
    let world = world().await;
    let mut bytes = world.signed("//Bob//hotkey", commit(OPEN, b"twice"));
    bytes.push(0);
    assert_eq!(world.refused(&bytes).await.0, 1001);
    assert_eq!(world.ask("author_pendingExtrinsics", json!([])).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_subnet_gives_a_uid_away_and_what_was_said_of_its_last_owner_is_void() {
    let mut chain = spec();
    for subnet in &mut chain.subnets {
        (subnet.max_uids, subnet.immunity, subnet.burn_max) = (3, 5, 1_000_000);
    }
    let world = world_of(Config { chain, ..Config::default() }).await;
    let register =
        |limit_price| Call::<Runtime>::register_limit { netuid: OPEN, hotkey: account("//Dave//hotkey"), limit_price };
    world.ask("covey_makeBlock", json!([])).await;
    world.submit(&world.signed("//Alice//hotkey", weights(&[1, 2], &[1, 1]))).await;
    world.submit(&world.signed("//Dave", register(499_999))).await;
    world.ask("covey_makeBlock", json!([])).await;
    assert!(world.events().contains("Module(ModuleError { index: 7"), "the price is above the limit");
    world.submit(&world.signed("//Dave", register(500_000))).await;
    world.ask("covey_makeBlock", json!([])).await;
    assert!(world.events().contains("ExtrinsicFailed"), "all are immune: {}", world.events());
    world.ask("covey_makeBlock", json!([6])).await;
    world.submit(&world.signed("//Dave", register(600_000))).await;
    world.ask("covey_makeBlock", json!([])).await;
    assert!(world.events().contains("NeuronRegistered(2, 1,"), "{}", world.events());
    let since = map("SubtensorModule", "BlockAtRegistration", &[OPEN.encode(), 1_u16.encode()]);
    assert_eq!(world.read::<u64>(&since), Some(10), "the uid is another peer's now");
    world.ask("covey_makeBlock", json!([12])).await;
    let incentive = world.read::<Vec<u16>>(&map("SubtensorModule", "Incentive", &[OPEN.encode()]));
    assert_eq!(incentive, Some(vec![0, 0, u16::MAX]), "what Alice's row says of uid 1 was about Bob");
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_committed_by_hash_are_revealed_in_their_epoch_and_no_other() {
    for stateful_epochs in [false, true] {
        let chain = covey_devnet::ChainSpec { stateful_epochs, ..spec() };
        let world = world_of(Config { chain, ..Config::default() }).await;
        let (uids, values, salt) = (vec![1_u16, 2], vec![1_u16, 3], vec![7_u16; 8]);
        let hash = (account("//Bob//hotkey"), HIDDEN, &uids, &values, &salt, 0_u64)
            .using_encoded(|bytes| sp_core::H256(sp_io::hashing::blake2_256(bytes)));
        world.ask("covey_makeBlock", json!([])).await;
        let open = world.signed(
            "//Bob//hotkey",
            Call::<Runtime>::set_weights { netuid: HIDDEN, dests: vec![1], weights: vec![1], version_key: 0 },
        );
        world.submit(&open).await;
        world.ask("covey_makeBlock", json!([])).await;
        assert!(world.events().contains("ExtrinsicFailed"), "weights are hidden here");
        let commit = Call::<Runtime>::commit_weights { netuid: HIDDEN, commit_hash: hash };
        world.submit(&world.signed("//Bob//hotkey", commit)).await;
        world.ask("covey_makeBlock", json!([])).await;
        assert!(world.events().contains("WeightsCommitted"), "{}", world.events());
        let reveal = || {
            let (uids, values, salt) = (uids.clone(), values.clone(), salt.clone());
            Call::<Runtime>::reveal_weights { netuid: HIDDEN, uids, values, salt, version_key: 0 }
        };
        let early = world.refused(&world.signed("//Bob//hotkey", reveal())).await;
        assert_eq!(early, (1010, "Custom error: 16".into()), "stateful {stateful_epochs}");
        let mut wrong = reveal();
        if let Call::reveal_weights { values, .. } = &mut wrong {
            values[0] += 1;
        }
        assert_eq!(world.refused(&world.signed("//Bob//hotkey", wrong)).await.1, "Custom error: 15");
        world.ask("covey_makeBlock", json!([11])).await;
        world.submit(&world.signed("//Bob//hotkey", reveal())).await;
        world.ask("covey_makeBlock", json!([])).await;
        assert!(world.events().contains("WeightsRevealed"), "stateful {stateful_epochs}: {}", world.events());
        assert_eq!(world.read::<Vec<(u16, u16)>>(&row(HIDDEN, 1)), Some(vec![(1, 21_845), (2, u16::MAX)]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_cut_again_and_again_until_they_are_not() {
    let world = world().await;
    world.ask("covey_faultDropConnectionsEvery", json!([500])).await;
    for _ in 0..3 {
        // The cut may come while the two sides still greet each other.
        let client = loop {
            if let Ok(client) = jsonrpsee::ws_client::WsClientBuilder::default().build(world.devnet.url()).await {
                break client;
            }
        };
        client.on_disconnect().await;
    }
    world.devnet.drop_connections_every(None);
    world.devnet.refuse_connections(true);
    assert!(jsonrpsee::ws_client::WsClientBuilder::default().build(world.devnet.url()).await.is_err());
    world.devnet.refuse_connections(false);
    let again = connect(&world.devnet.url()).await;
    assert_eq!(ask(&again, "system_chain", json!([])).await, "Covey Devnet");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_cut_and_taken_again() {
    let world = world().await;
    world.devnet.drop_connections();
    world.client().on_disconnect().await;
    let again = connect(&world.devnet.url()).await;
    assert_eq!(ask(&again, "system_chain", json!([])).await, "Covey Devnet");
}

#[tokio::test(flavor = "multi_thread")]
async fn chain_head_answers_after_it_has_said_that_it_will() {
    let world = world().await;
    let mut follow = subscribe(world.client(), "chainHead_v1_follow", json!([true]), "chainHead_v1_unfollow").await;
    let first = follow.next().await.unwrap().unwrap();
    let id = match follow.kind() {
        jsonrpsee::core::client::SubscriptionKind::Subscription(id) => serde_json::to_value(id).unwrap(),
        kind => panic!("{kind:?}"),
    };
    let genesis = first["finalizedBlockHashes"][0].clone();
    let key = hexed(frame_support::storage::storage_prefix(b"SubtensorModule", b"Keys"));
    let query = json!([{ "key": key, "type": "descendantsValues" }]);
    let started = world.ask("chainHead_v1_storage", json!([id, genesis, query, null])).await;
    assert_eq!(started["result"], "started");
    let mut items = 0;
    loop {
        let event: Value = follow.next().await.unwrap().unwrap();
        if event["event"] == "operationStorageItems" {
            assert_eq!(event["operationId"], started["operationId"]);
            items += event["items"].as_array().unwrap().len();
        } else if event["event"] == "operationStorageDone" {
            break;
        }
    }
    assert_eq!(items, 6, "three members of two subnets");
    world.ask("chainHead_v1_unpin", json!([id, genesis])).await;
    let (code, _) = refused(world.client(), "chainHead_v1_header", json!([id, genesis])).await;
    assert_eq!(code, -32_801);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_asks_for_so_many_hashes_and_no_more() {
    let world = world().await;
    let asked = |count: u32| json!([(0..count).collect::<Vec<_>>()]);
    assert_eq!(world.ask("chain_getBlockHash", asked(1_024)).await.as_array().unwrap().len(), 1_024);
    let (_, why) = refused(world.client(), "chain_getBlockHash", asked(1_025)).await;
    assert!(why.contains("1025 blocks exceed the maximum of 1024"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_subscription_follows_so_many_keys_of_so_many_bytes_and_no_more() {
    let world = world().await;
    let follow = async |keys: Vec<String>| {
        let params = Params(json!([keys]));
        let started =
            world.client().subscribe::<Value, _>("state_subscribeStorage", params, "state_unsubscribeStorage");
        started.await
    };
    let keys = |count: u32| (0..count).map(|key| hexed(key.to_le_bytes())).collect::<Vec<_>>();
    let mut all = follow(keys(1_024)).await.unwrap();
    assert_eq!(all.next().await.unwrap().unwrap()["changes"].as_array().unwrap().len(), 1_024);
    let why = follow(keys(1_025)).await.unwrap_err().to_string();
    assert!(why.contains("1025 keys exceed the maximum of 1024"), "{why}");
    let why = follow(vec![hexed(vec![7; 1_025])]).await.unwrap_err().to_string();
    assert!(why.contains("exceeds the maximum of 1024 bytes"), "{why}");
}

/// On one thread, which would be busy with them: what clients follow is looked up on others.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[allow(clippy::await_holding_lock)] // That is the test.
async fn who_follows_keys_holds_nobody_up() {
    let world = world().await;
    let keys: Vec<String> = (0..1_024_u32).map(|key| hexed(key.to_le_bytes())).collect();
    let mut all = Vec::new();
    for _ in 0..32 {
        let params = Params(json!([keys]));
        let started =
            world.client().subscribe::<Value, _>("state_subscribeStorage", params, "state_unsubscribeStorage");
        all.push(started.await.unwrap());
    }
    let other = connect(&world.devnet.url()).await;
    for followed in &mut all {
        assert!(followed.next().await.is_some());
    }
    // A block, and the chain is held, so that nobody who looks at it gets on: other clients are answered all the same.
    let mut held = world.devnet.chain();
    held.make_block().unwrap();
    let answer = tokio::time::timeout(std::time::Duration::from_secs(20), ask(&other, "system_health", json!([])));
    assert_eq!(answer.await.unwrap()["peers"], 0);
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_from_elsewhere_reads_and_cannot_operate() {
    let world = world().await;
    let page = async |origin: &str| {
        let mut headers = jsonrpsee::ws_client::HeaderMap::new();
        headers.insert("origin", origin.parse().unwrap());
        WsClientBuilder::default().set_headers(headers).build(world.devnet.url()).await.unwrap()
    };
    let evil = page("https://evil.example").await;
    assert_eq!(ask(&evil, "chain_getHeader", json!([])).await["number"], "0x0");
    let (code, why) = refused(&evil, "covey_makeBlock", json!([])).await;
    assert!(code == -32601, "{why}");
    assert_eq!(world.ask("chain_getHeader", json!([])).await["number"], "0x0", "no block was made");
    let own = page("http://localhost:8000").await;
    assert_eq!(ask(&own, "covey_makeBlock", json!([])).await["number"], 1);
}
