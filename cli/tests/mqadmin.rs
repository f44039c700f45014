//! The `mqadmin` program against a server that remembers what it was asked.

mod cluster;

use proto::admin::{self, error::Fate};
use serde_json::Value;

use crate::cluster::{Cluster, mqadmin, stderr, stdout};

#[test]
fn a_topic_is_created_and_listed() {
    let cluster = Cluster::start();
    let made =
        cluster.mqadmin("updateTopic -t orders -c DefaultCluster -r 4 -w 4 -a +message.type=FIFO");
    assert!(made.status.success(), "{}", stderr(&made));
    assert!(stdout(&made).contains("topic orders created"), "{}", stdout(&made));
    let asked = cluster.fake.0.lock().unwrap().asked[0].clone();
    assert_eq!(asked.broker_names, ["broker-a"]);
    assert_eq!(asked.config.unwrap().queues, 4);

    let list = cluster.json("topicList");
    assert_eq!(list["topics"][0]["name"], "orders");
    assert_eq!(list["topics"][0]["message_type"], "FIFO");
    assert!(stdout(&cluster.mqadmin("topicList")).contains("broker-a:4"));
}

#[test]
fn topics_and_groups_are_deleted_and_quotas_set() {
    use admin::change_request::Change;
    let cluster = Cluster::start();
    let commands = [
        "deleteTopic -t orders -c DefaultCluster --yes",
        "deleteSubGroup -g audit -c DefaultCluster -r true --yes",
        "updateQuota -t orders --messages 5",
        "updateTopic -t orders --retentionMs 9",
        "updateSubGroup -g audit -s false",
        "deleteTopic -t orders -b broker-b -y",
        "deleteTopic -t orders -b broker-b --force --yes",
    ];
    for command in commands {
        let made = cluster.mqadmin(command);
        assert!(made.status.success(), "{command}: {}", stderr(&made));
    }
    let asked = cluster.fake.0.lock().unwrap().changed.clone();
    let quota = admin::Quota {
        kind: admin::LimitedKind::Topic.into(),
        name: "orders".into(),
        messages_per_second: 5,
        ..Default::default()
    };
    let retire = |force| {
        let (topic, broker_name) = ("orders".into(), "broker-b".into());
        Change::RetireTopic(admin::RetireTopic { topic, broker_name, force })
    };
    let expected = [
        Change::DeleteTopic("orders".into()),
        Change::DeleteGroup("audit".into()),
        Change::PutQuota(quota),
        Change::PutRetention(admin::Retention {
            topic: "orders".into(),
            ms: 9,
            bytes: 0,
            version: 0,
        }),
        Change::SwitchGroup(admin::SwitchGroup {
            group: "audit".into(),
            enabled: false,
            version: 0,
        }),
        retire(false),
        retire(true),
    ];
    let asked: Vec<_> = asked.into_iter().map(|request| request.change.unwrap()).collect();
    assert_eq!(asked, expected);
    assert_eq!(cluster.json("quotaList")["quotas"][0]["messages_per_second"], 5);
    let elsewhere = cluster.mqadmin("deleteTopic -t orders -c Nowhere");
    assert_eq!(elsewhere.status.code(), Some(1));

    for (command, text) in [
        ("deleteTopic -t absent --yes", "topic absent does not exist"),
        ("deleteSubGroup -g absent --yes", "consumer group absent does not exist"),
        ("deleteTopic -t orders --yes", "topic orders deleted"),
    ] {
        let again = cluster.mqadmin(command);
        assert!(again.status.success(), "{command}: {}", stderr(&again));
        assert_eq!(stdout(&again).trim(), text);
    }
    assert_eq!(cluster.json("deleteTopic -t absent --yes")["done"], "absent");
}

#[test]
fn a_broker_may_be_named_by_the_address_of_a_replica() {
    let cluster = Cluster::start();
    assert!(cluster.mqadmin("updateTopic -t orders -b 127.0.0.1:8083").status.success());
    assert_eq!(cluster.fake.0.lock().unwrap().asked[0].broker_names, ["broker-a"]);
    let unknown = cluster.mqadmin("updateTopic -t orders -b broker-z");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("broker-a"), "{}", stderr(&unknown));
}

#[test]
fn a_topics_queues_are_listed_in_order() {
    let cluster = Cluster::start();
    assert!(cluster.mqadmin("updateTopic -t orders").status.success());
    let status = cluster.json("topicStatus -t orders");
    assert_eq!(status["queues"][0]["queue"], 0);
    assert_eq!(status["queues"][1]["max_offset"], 12);
    let missing = cluster.mqadmin("topicStatus -t audit");
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("topic audit does not exist"), "{}", stderr(&missing));
}

#[test]
fn the_cluster_and_its_leaders_are_listed() {
    let cluster = Cluster::start();
    let list = cluster.json("clusterList");
    assert_eq!(list["brokers"][0]["leader_id"], 2);
    assert_eq!(list["brokers"][0]["members"][1]["role"], "leader");
    let moved = cluster.json("transferLeader -b broker-a -i 3");
    assert_eq!(moved["leader_id"], 3);
}

#[test]
fn members_are_shown_and_changed() {
    use admin::change_membership_request::Change;
    let cluster = Cluster::start();
    let status = cluster.json("raftStatus -b broker-a");
    assert_eq!(status["members"][1]["lag_bytes"], 5_000);
    assert_eq!(status["members"][0]["role"], "leader");
    assert_eq!(status["waiting"][0]["node_id"], 4);
    let text = String::from_utf8(cluster.mqadmin("raftStatus -b broker-a").stdout).unwrap();
    assert!(text.contains("2 voters") && text.contains("node 4"), "{text}");
    // Nobody is there to be asked.
    let output = cluster.mqadmin("removePeer -b broker-a -i 2");
    assert!(!output.status.success() && stderr(&output).contains("--yes"), "{output:?}");
    assert!(cluster.fake.0.lock().unwrap().members_changed.is_empty());
    assert_eq!(cluster.json("removePeer -b broker-a -i 2 --yes")["survives"], "2 voters");
    assert_eq!(cluster.json("promote -b broker-a -i 2")["done"], "promoted");
    let changed = std::mem::take(&mut cluster.fake.0.lock().unwrap().members_changed);
    assert_eq!(changed, [Change::Remove(2), Change::Promote(2)]);
}

#[test]
fn a_dead_node_is_replaced_by_one_command() {
    use admin::change_membership_request::Change;
    let cluster = Cluster::start();
    let done = cluster.json("replacePeer -b broker-a -i 2 --with 4 --yes");
    assert_eq!(done["done"], "replaced");
    let changed = std::mem::take(&mut cluster.fake.0.lock().unwrap().members_changed);
    let swap = Change::Replace(admin::ReplacePeer { old: 2, with: 4 });
    let add = admin::AddLearner { node_id: 4, raft_address: String::new() };
    assert_eq!(changed, [Change::AddLearner(add), swap.clone(), swap], "as often as it takes");
}

#[test]
fn a_consumer_group_is_put_and_its_progress_shown() {
    let cluster = Cluster::start();
    let put = "updateSubGroup -g billing -c DefaultCluster -s true -o true -m false -d false";
    assert!(cluster.json(put)["fifo"].as_bool().unwrap());
    assert_eq!(cluster.json("consumerProgress -g billing")["lag"], 5);
    assert_eq!(cluster.json("consumerProgress")["groups"][0]["group"], "billing");
}

#[test]
fn offsets_are_reset_by_time_and_by_offset() {
    let cluster = Cluster::start();
    let to = |flags: &str| {
        let report = cluster.json(&format!("resetOffsetByTime -g billing -t orders {flags} --yes"));
        (
            report["queues"][0]["queue"].as_u64().unwrap(),
            report["queues"][0]["to"].as_u64().unwrap(),
        )
    };
    assert_eq!(to("-s now"), (0, 12));
    assert_eq!(to("-s -1"), (0, 12));
    assert_eq!(to("-s 1000 -f true"), (0, 1000));
    assert_eq!(to("-s 2023-11-14#22:13:20:123"), (0, 1_700_000_000_123));
    assert_eq!(to("-b broker-a -q 3 -o 5"), (3, 5));
    let skipped = cluster.json("skipAccumulatedMessage -g billing -t orders --yes");
    assert_eq!(skipped["queues"][0]["ended"], 3);
    for wrong in ["", "-s tomorrow", "-o 5", "-s now -q 1 -o 5"] {
        let refused = cluster.mqadmin(&format!("resetOffsetByTime -g billing -t orders {wrong}"));
        assert_eq!(refused.status.code(), Some(2), "{wrong}: {}", stderr(&refused));
    }
}

#[test]
fn messages_are_shown_with_what_became_of_them() {
    let cluster = Cluster::start();
    for found in ["queryMsgById -i id-1", "queryMsgByOffset -b broker-a -i 0 -o 9"] {
        let message = &cluster.json(&format!("{found} -t orders"))["messages"][0];
        assert_eq!((&message["tag"], &message["offset"]), (&"red".into(), &9.into()));
        assert_eq!(message["tracks"][0]["state"], "NOT_CONSUME_YET");
        let text = stdout(&cluster.mqadmin(&format!("{found} -t orders")));
        assert!(text.contains("2023-11-14 22:13:20.123") && text.contains("billing"), "{text}");
    }
    let absent = cluster.mqadmin("queryMsgById -i absent -t orders");
    assert_eq!(absent.status.code(), Some(1));
    assert!(stderr(&absent).contains("no message with the id absent"), "{}", stderr(&absent));
    assert_eq!(cluster.json("queryMsgByKey -t orders -k k")["messages"][0]["keys"][0], "k");
    assert_eq!(cluster.json("printMsg -t orders")["messages"][0]["body"], "body");
    assert_eq!(cluster.json("printMsg -t orders -s red")["messages"], Value::Array(vec![]));
}

#[test]
fn connections_are_listed_with_their_conflicts() {
    let cluster = Cluster::start();
    let consumers = cluster.json("consumerConnection -g billing");
    assert_eq!(consumers["connections"][0]["topics"]["orders"], "a || b");
    assert_eq!(consumers["conflicts"][0], "billing: two filters");
    let producers = cluster.json("producerConnection -t orders");
    assert_eq!(producers["connections"].as_array().unwrap().len(), 1);
    assert_eq!(cluster.json("producerConnection -t other")["connections"], Value::Array(vec![]));
}

#[test]
fn transactions_are_listed_and_resolved() {
    let cluster = Cluster::start();
    let all = cluster.json("txList -t orders");
    assert_eq!(all["transactions"][0]["state"], "pending");
    let parked = cluster.json("txList -t orders --parked");
    let parked = &parked["transactions"];
    assert_eq!((&parked[0]["state"], &parked[0]["broker"]), (&"parked".into(), &"broker-a".into()));
    let id = parked[0]["transaction_id"].as_str().unwrap();

    assert!(cluster.mqadmin(&format!("txResolve -i {id} --commit")).status.success());
    assert!(cluster.mqadmin(&format!("txResolve -i {id} --rollback --yes")).status.success());
    assert!(!cluster.mqadmin(&format!("txResolve -i {id}")).status.success());
    let asked = cluster.fake.0.lock().unwrap().resolved.clone();
    let asked: Vec<_> = asked.iter().map(|r| (r.transaction_id.as_str(), r.commit)).collect();
    assert_eq!(asked, [(id, true), (id, false)]);
}

#[test]
fn delayed_messages_are_listed_in_the_order_of_their_delivery() {
    let cluster = Cluster::start();
    let ids = |flags: &str| {
        let listed = cluster.json(&format!("timerList -t later {flags}"));
        assert_eq!(listed["waiting"], 6);
        let ids: Vec<String> = listed["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["message_id"].as_str().unwrap().replace("broker-", ""))
            .collect();
        (ids.join(" "), listed["truncated"].as_bool().unwrap())
    };
    assert_eq!(ids(""), ("a-0 b-0 a-1 b-1 a-2 b-2".to_owned(), false), "page by page");
    assert_eq!(ids("-m 3"), ("a-0 b-0 a-1".to_owned(), true));
    let between = "-b 1700000000005 -e 2023-11-14#22:13:20:015";
    assert_eq!(ids(between), ("b-0 a-1".to_owned(), false));
    let text = stdout(&cluster.mqadmin("timerList -t later -m 1"));
    for part in ["6 delayed messages wait", "2023-11-14 22:13:20.000", "handle-broker-a-0", "more"]
    {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(cluster.mqadmin("timerList -t later -m 0").status.code(), Some(2));
}

#[test]
fn what_cannot_be_undone_is_not_done_unasked() {
    let cluster = Cluster::start();
    for command in [
        "deleteTopic -t orders",
        "deleteTopic -t orders -b broker-a",
        "deleteSubGroup -g audit",
        "resetOffsetByTime -g billing -t orders -s now",
        "skipAccumulatedMessage -g billing -t orders",
        "cloneGroupOffset -s billing -d audit -t orders",
        "txResolve -i ID --rollback",
        "demote -b broker-a -i 2",
        "removePeer -b broker-a -i 2",
        "replacePeer -b broker-a -i 2 --with 4",
    ] {
        let refused = cluster.mqadmin(command);
        assert_eq!(refused.status.code(), Some(1), "{command}");
        assert!(stderr(&refused).contains("say --yes"), "{command}: {}", stderr(&refused));
    }
    let state = cluster.fake.0.lock().unwrap();
    assert!(state.changed.is_empty() && state.members_changed.is_empty(), "{state:?}");
    assert!(state.resolved.is_empty() && state.resets.is_empty(), "{state:?}");
}

#[test]
fn a_group_is_put_where_another_one_is() {
    use admin::reset_offsets_request::To;
    let cluster = Cluster::start();
    let made = cluster.json("cloneGroupOffset -s billing -d audit -t orders --yes");
    assert_eq!(made["queues"][0]["to"], 7);
    let resets = cluster.fake.0.lock().unwrap().resets.clone();
    assert_eq!((resets[0].group.as_str(), resets[0].to), ("audit", Some(To::Offset(7))));
    let same = cluster.mqadmin("cloneGroupOffset -s audit -d audit -t orders --yes");
    assert_eq!(same.status.code(), Some(1));
}

#[test]
fn deliveries_are_listed_and_counted_by_consumer() {
    let cluster = Cluster::start();
    let held = cluster.json("popInflight -g billing");
    let held = &held["messages"];
    assert_eq!((&held[0]["client_id"], &held[0]["due_ms"]), (&"client-3".into(), &2000.into()));
    assert_eq!((&held[1]["waits"], &held[1]["due_ms"]), (&true.into(), &Value::Null));
    let status = cluster.json("consumerStatus -g billing");
    assert_eq!(status["lag"], 5);
    assert_eq!(status["consumers"][0]["in_flight"], 1);
    assert_eq!(status["consumers"][0]["redelivered"], 1);
    assert_eq!(cluster.mqadmin("consumerStatus -g nobody -i stranger").status.code(), Some(1));
}

#[test]
fn queues_are_shared_as_consumers_would_share_them() {
    let cluster = Cluster::start();
    assert!(cluster.mqadmin("updateTopic -t orders").status.success());
    let shared = cluster.json("allocateMQ -t orders -i b,a");
    assert_eq!(shared["consumers"][0]["consumer"], "a");
    assert_eq!(shared["consumers"][1]["queues"][0]["queue"], 1);
    assert_eq!(cluster.json("topicClusterList -t orders")["clusters"][0], "DefaultCluster");
}

#[test]
fn a_shell_completes_commands_and_flags() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&mqadmin(&format!("completion {shell}")));
        for word in ["updateBrokerConfig", "brokerStatus"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn help_shows_an_example() {
    let help = stdout(&mqadmin("cloneGroupOffset --help"));
    assert!(help.contains("Example:") && help.contains("--srcGroup"), "{help}");
}

#[test]
fn the_exit_code_tells_how_it_ended() {
    let cluster = Cluster::start();
    for (fate, code) in [(Fate::Rejected, 1), (Fate::NotDone, 3), (Fate::Unknown, 4)] {
        let error = admin::Error { fate: fate as i32, message: "because".into() };
        cluster.fake.0.lock().unwrap().refuse = Some(error);
        let refused = cluster.mqadmin("updateTopic -t orders");
        assert_eq!(refused.status.code(), Some(code));
        assert!(stderr(&refused).contains("because"), "{}", stderr(&refused));
    }
}

#[test]
fn mistakes_are_said_in_words() {
    let nobody = mqadmin("topicList -n 127.0.0.1:1");
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        stderr(&nobody).contains("is a NameServer or a broker listening"),
        "{}",
        stderr(&nobody)
    );
    let bad_name = mqadmin("updateTopic -t a.b");
    assert_eq!(bad_name.status.code(), Some(2));
    assert!(stderr(&bad_name).contains("which is not allowed"), "{}", stderr(&bad_name));
    let cluster = Cluster::start();
    let unknown = cluster.mqadmin("updateTopic -t a -c NoSuchCluster");
    assert!(stderr(&unknown).contains("DefaultCluster"), "{}", stderr(&unknown));
}
