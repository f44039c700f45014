//! One cluster on which every command has something to do.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use proto::v2;
use raftmq_client::{ClientConfig, FilterExpression, Message, Producer, SimpleConsumer};
use serde_json::Value;
use tests::binaries::repository;
use tests::cluster::ELECTION;
use tests::mqadmin::{self, PATIENCE, SOON};
use tests::{Cluster, eventually};

use crate::{commands, manual};

/// What the run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Check,
    WriteSchema,
    WriteManual,
}

pub(crate) struct Tour {
    cluster: Cluster,
    through: String,
    purpose: Purpose,
    schema: BTreeMap<String, String>,
    printed: BTreeMap<String, (String, String)>,
}

fn schema_path() -> PathBuf {
    repository().join("tests/tests/mqadmin/schema.txt")
}

/// The keys of each command's JSON.
pub(crate) fn schema() -> BTreeMap<String, String> {
    let text = fs::read_to_string(schema_path()).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(name, shape)| (name.to_owned(), shape.to_owned())).collect()
}

/// The keys of a value; of a list, those of its first element.
fn shape(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| match shape(value) {
                inner if inner.is_empty() => name.clone(),
                inner => format!("{name}:{inner}"),
            };
            let fields: Vec<String> = fields.iter().map(field).collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(list) => format!("[{}]", list.first().map(shape).unwrap_or_default()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => String::new(),
    }
}

impl Tour {
    pub(crate) async fn begin() -> Self {
        let purpose = match std::env::var("MQADMIN_WRITE").as_deref() {
            Ok("schema") => Purpose::WriteSchema,
            Ok("manual") => Purpose::WriteManual,
            _ => Purpose::Check,
        };
        let cluster = Cluster::of(3).start().await;
        let through = cluster.nameservers[0].address.to_string();
        Self { cluster, through, purpose, schema: BTreeMap::new(), printed: BTreeMap::new() }
    }

    /// A step that is needed, of a command that another step is about.
    async fn quietly(&self, line: &str) -> Value {
        mqadmin::json(&self.cluster, &self.through, line).await
    }

    /// A step that is shown: `None` where the answer was for people.
    async fn step(&mut self, line: &str) -> Option<Value> {
        let through = self.through.clone();
        self.step_through(&through, line).await
    }

    async fn step_through(&mut self, through: &str, line: &str) -> Option<Value> {
        let name = line.split_whitespace().next().expect("a command").to_owned();
        if self.purpose == Purpose::WriteManual {
            let (code, output) = mqadmin::run(&self.cluster, through, line, PATIENCE).await;
            assert_eq!(code, 0, "{line}: {output}");
            let scratch = self.cluster.scratch.path().display().to_string();
            let tidy = |text: &str| text.replace(&scratch, "/backups");
            self.printed.insert(name, (tidy(line), tidy(&output)));
            return None;
        }
        let said = mqadmin::json(&self.cluster, through, line).await;
        self.schema.insert(name, shape(&said));
        Some(said)
    }

    pub(crate) async fn run(mut self) {
        self.topics_and_messages().await;
        self.consumers().await;
        self.transactions().await;
        self.brokers().await;
        self.members().await;
        self.deletions().await;
        match self.purpose {
            Purpose::Check => self.compare(),
            Purpose::WriteSchema => {
                let line = |(name, shape): (&String, &String)| format!("{name} {shape}\n");
                let text: String = self.schema.iter().map(line).collect();
                fs::write(schema_path(), text).expect("the schema can be written");
            }
            Purpose::WriteManual => manual::write(&commands(), &self.printed),
        }
        self.cluster.finish().await;
    }

    fn compare(&self) {
        let expected = schema();
        for (name, found) in &self.schema {
            let expected = expected.get(name).map_or("", String::as_str);
            assert_eq!(found, expected, "{name} --json");
        }
    }

    fn config(&self) -> ClientConfig {
        ClientConfig::new(&self.through).expect("an address")
    }

    async fn topics_and_messages(&mut self) {
        self.step("updateTopic -c DefaultCluster -t orders -w 4").await;
        self.cluster.topic_of("reminders", 1, v2::MessageType::Delay).await;
        self.cluster.topic_of("payments", 1, v2::MessageType::Transaction).await;
        self.cluster.topic("orders", 4).await;
        self.step("topicList").await;
        self.step("topicRoute -t orders").await;
        self.step("topicClusterList -t orders").await;
        self.step("sendMessage -t orders -p hello -k order-7 -c red").await;
        self.step("checkMsgSendRT -t orders -a 20").await;
        self.step("topicStatus -t orders").await;
        let sent = self.quietly("queryMsgByKey -t orders -k order-7").await;
        let sent = &sent["messages"][0];
        let id = sent["id"].as_str().expect("an id").to_owned();
        let (queue, offset) = (sent["queue"].clone(), sent["offset"].clone());
        self.step("queryMsgByKey -t orders -k order-7").await;
        self.step("printMsg -t orders -m 3").await;
        self.step("consumeMessage -t orders -c 3").await;
        self.quietly("sendMessage -t reminders -p later --delayMs 3600000").await;
        let waiting = self.step("timerList -t reminders").await;
        assert!(waiting.is_none_or(|list| list["waiting"] == 1));
        self.step("updateSubGroup -c DefaultCluster -g billing -r 5").await;
        self.quietly("updateSubGroup -g audit").await;
        // Now that there are groups, it is known what became of a message in each.
        self.quietly("resetOffsetByTime -g billing -t orders -s 0 --yes").await;
        self.step(&format!("queryMsgById -t orders -i {id}")).await;
        let place = format!("queryMsgByOffset -t orders -b broker-a -i {queue} -o {offset}");
        self.step(&place).await;
    }

    async fn consumers(&mut self) {
        let producer = Producer::builder(self.config()).topic("orders").build().await;
        let producer = producer.expect("it starts");
        producer.send(Message::new("orders", "from a producer")).await.expect("it is stored");
        let consumer = SimpleConsumer::builder(self.config(), "billing")
            .subscribe("orders", FilterExpression::all())
            .build()
            .await
            .expect("it starts");
        let held = consumer.receive(3, Duration::from_secs(60)).await.expect("messages");
        assert!(!held.is_empty());
        self.step("getConsumerConfig -g billing").await;
        self.sees("consumerConnection -g billing", "connections").await;
        self.step("consumerConnection -g billing").await;
        self.sees("producerConnection -t orders", "connections").await;
        self.step("producerConnection -t orders").await;
        self.step("consumerProgress -g billing").await;
        self.step("brokerConsumeStats -b broker-a").await;
        let flying = self.step("popInflight -g billing").await;
        assert!(flying.is_none_or(|list| {
            list["messages"].as_array().is_some_and(|list| list.len() == held.len())
        }));
        let status = self.step("consumerStatus -g billing").await;
        assert!(status.is_none_or(|status| {
            status["consumers"][0]["in_flight"] == held.len()
                && status["consumers"][0]["connected"] == true
        }));
        let moved = self.step("cloneGroupOffset -s billing -d audit -t orders --yes").await;
        assert!(moved.is_none_or(|moved| moved["queues"].as_array().is_some_and(|q| q.len() == 4)));
        self.step("resetOffsetByTime -g audit -t orders -s now --yes").await;
        self.step("skipAccumulatedMessage -g audit -t orders --yes").await;
        let progress = self.quietly("consumerProgress -g audit").await;
        assert_eq!(progress["lag"], 0, "{progress}");
        self.step("dlqRedrive -g billing -m 100").await;
        self.step("allocateMQ -t orders -i 10.0.0.1,10.0.0.2").await;
        let all = self.step("statsAll").await;
        if let Some(all) = all {
            let of = |topic: &str| {
                let lines = all["topics"].as_array().expect("lines").iter();
                lines.filter(|line| line["topic"] == topic).cloned().collect::<Vec<_>>()
            };
            let stored = of("orders").iter().map(|line| line["in"]["messages"].as_u64()).max();
            assert_eq!(stored, Some(Some(22)), "{all}");
            let billing = of("orders").into_iter().find(|line| line["group"] == "billing");
            assert_eq!(billing.expect("a line")["out"]["messages"], held.len(), "{all}");
        }
        consumer.close().await;
        producer.close().await;
    }

    /// Connections are told by a stream that may be a moment behind.
    async fn sees(&self, line: &str, list: &str) {
        eventually(line, ELECTION, async || {
            let said = self.quietly(line).await;
            match said[list].as_array().is_some_and(|list| !list.is_empty()) {
                true => Ok(()),
                false => Err(said.to_string()),
            }
        })
        .await;
    }

    async fn transactions(&mut self) {
        let producer = Producer::builder(self.config()).topic("payments").build().await;
        let producer = producer.expect("it starts");
        let open = producer.send_transactional(Message::new("payments", "of one")).await;
        let open = open.expect("it is stored");
        self.step("txList -t payments").await;
        let list = self.quietly("txList -t payments").await;
        let id = list["transactions"][0]["transaction_id"].as_str().expect("an id").to_owned();
        self.step(&format!("txResolve -i {id} --commit")).await;
        drop(open);
        producer.close().await;
        let visible = self.quietly("topicStatus -t payments").await;
        assert_eq!(visible["queues"][0]["max_offset"], 1, "{visible}");
    }

    async fn brokers(&mut self) {
        self.step("clusterList").await;
        let status = self.step("brokerStatus -b broker-a").await;
        if let Some(status) = status {
            let nodes = status["nodes"].as_array().expect("nodes");
            let leader = nodes.iter().find(|node| node["leads"] == true).expect("a leader");
            assert_eq!((nodes.len(), &leader["runtime"]["raftRole"]), (3, &"leader".into()));
        }
        self.step("updateBrokerConfig -b broker-a -k log.retention_time -v 48h").await;
        let config = self.step("getBrokerConfig -b broker-a --changed").await;
        if let Some(config) = config {
            for node in config["nodes"].as_array().expect("nodes") {
                let settings = node["settings"].as_array().expect("settings");
                let of = |key: &str| settings.iter().find(|s| s["key"] == key).expect("it is set");
                let retention = of("log.retention_time");
                assert_eq!(
                    (&retention["value"], &retention["origin"]),
                    (&"2days".into(), &"replicated".into())
                );
                assert_eq!(of("listen")["origin"], "--listen");
                assert_eq!(of("log.disk_high")["origin"], "--set");
            }
        }
        self.step("updateQuota -t orders --messages 1000").await;
        self.step("quotaList").await;
        self.step("updateTopicPerm -t orders -p 6").await;
        self.step("raftStatus -b broker-a").await;
        let (leader, _) = self.cluster.leader().await;
        let other = self.cluster.followers().await[0].id;
        self.step(&format!("transferLeader -b broker-a -i {other}")).await;
        self.step("balanceLeaders").await;
        self.step(&format!("drain -b broker-a -i {}", leader.id)).await;
        self.quietly(&format!("drain -b broker-a -i {} --off", leader.id)).await;
        self.step("verifyReplicas").await;
        self.step("snapshotNow -b broker-a").await;
        let to = self.cluster.scratch.path().join("broker-a");
        self.step(&format!("backup -b broker-a --to {}", to.display())).await;
        let broker = self.cluster.nodes[0].addresses.client.to_string();
        self.step_through(&broker, "changeLogLevel -l info").await;
        self.step("exportMetadata").await;
        self.step("completion bash").await;
    }

    async fn waits(&self, id: u64) {
        eventually("the newcomer waits", ELECTION, async || {
            let (_, output) =
                mqadmin::run(&self.cluster, &self.through, "raftStatus -b broker-a --json", SOON)
                    .await;
            let status: Value = serde_json::from_str(&output).map_err(|_| output.clone())?;
            let waiting = status["waiting"].as_array().cloned().unwrap_or_default();
            if waiting.iter().any(|one| one["node_id"] == id) { Ok(()) } else { Err(output) }
        })
        .await;
    }

    async fn members(&mut self) {
        let learner = self.cluster.newcomer(4);
        self.waits(4).await;
        self.step("addLearner -b broker-a -i 4 --watch").await;
        self.step("promote -b broker-a -i 4 --watch").await;
        let raft = learner.addresses.raft;
        self.step(&format!("updatePeer -b broker-a -i 4 -r {raft}")).await;
        self.step("demote -b broker-a -i 4 --yes").await;
        self.step("removePeer -b broker-a -i 4 --yes").await;
        self.leaves(4).await;
        self.cluster.newcomer(5);
        self.waits(5).await;
        let old = self.cluster.followers().await.iter().map(|node| node.id).find(|id| *id < 4);
        let old = old.expect("a follower");
        self.step(&format!("replacePeer -b broker-a -i {old} --with 5 --yes")).await;
        self.leaves(old).await;
    }

    /// A removed node ends by itself.
    async fn leaves(&mut self, id: u64) {
        let node = self.cluster.nodes.iter().find(|node| node.id == id).expect("a node").clone();
        node.exit(ELECTION).await.expect("it ends");
        self.cluster.forget(id);
    }

    async fn deletions(&mut self) {
        self.step("deleteSubGroup -g audit --yes").await;
        self.step("deleteTopic -t orders --yes").await;
        let list = self.quietly("topicList").await;
        let topics = list["topics"].as_array().expect("topics").iter();
        assert!(topics.map(|topic| &topic["name"]).all(|name| name != "orders"), "{list}");
    }
}
