//! Administration for those who know the operators' secret, and for nobody else.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use proto::{admin, hop};
use tests::cluster::ELECTION;
use tests::mqadmin::{self, PATIENCE, SOON};
use tests::{Cluster, eventually};

/// The text of a refusal for want of a proof.
const NO_PROOF: &str = "takes the operators' secret";

async fn put_topic(cluster: &Cluster, through: &str, topic: &str, secret: &str) -> (i32, String) {
    let secret = if secret.is_empty() { String::new() } else { format!("--secret-file {secret}") };
    let command = format!("updateTopic -c DefaultCluster -t {topic} -w 2 {secret}");
    mqadmin::run(cluster, through, &command, SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_or_copies_takes_the_secret_and_what_looks_does_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let secret = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let ours = secret("ours", "what our operators share\n");
    let theirs = secret("theirs", "what other people share\n");
    let cluster = Cluster::of(3).set("admin.secret_file", &ours).start().await;
    let (leader, _) = cluster.leader().await;
    let follower = cluster.followers().await.remove(0);
    let nameserver = cluster.nameservers[0].address.to_string();
    let (leader, follower) =
        (leader.addresses.client.to_string(), follower.addresses.client.to_string());

    // By way of any node, and with another secret as well as without one.
    for through in [&nameserver, &leader, &follower] {
        for (secret, why) in [("", NO_PROOF), (theirs.as_str(), "is another one")] {
            let (code, text) = put_topic(&cluster, through, "orders", secret).await;
            assert!(code == 1 && text.contains(why), "{code}: {text}");
        }
    }
    for (number, through) in [&nameserver, &leader, &follower].into_iter().enumerate() {
        let (code, text) = put_topic(&cluster, through, &format!("orders-{number}"), &ours).await;
        assert_eq!(code, 0, "{text}");
    }

    let backup = dir.path().join("backup").display().to_string();
    let guarded = [
        "deleteTopic -c DefaultCluster -t orders-0 --yes".to_owned(),
        "updateSubGroup -c DefaultCluster -g billing".to_owned(),
        "removePeer -b broker-a -i 3 --yes".to_owned(),
        "transferLeader -b broker-a".to_owned(),
        "drain -b broker-a -i 3".to_owned(),
        format!("backup -b broker-a --to {backup}"),
    ];
    for command in &guarded {
        let (code, text) = mqadmin::run(&cluster, &nameserver, command, SOON).await;
        assert!(code == 1 && text.contains(NO_PROOF), "{command}: {code}: {text}");
    }
    for command in ["topicList", "clusterList", "raftStatus -b broker-a", "topicStatus -t orders-0"]
    {
        let (code, text) = mqadmin::run(&cluster, &nameserver, command, SOON).await;
        assert_eq!(code, 0, "{command}: {text}");
    }
    let command = format!("backup -b broker-a --to {backup} --secret-file {ours}");
    let (code, text) = mqadmin::run(&cluster, &nameserver, &command, PATIENCE).await;
    assert_eq!(code, 0, "{text}");

    // Who says that another node sent it is no operator either.
    let mut request = tonic::Request::new(admin::ChangeRequest {
        change: Some(admin::change_request::Change::DeleteTopic("orders-0".into())),
    });
    hop::mark(request.metadata_mut(), &"broker-a".parse().expect("a name"));
    let (node, _) = cluster.leader().await;
    let refused = node.rpc().admin().change(request).await.expect_err("no proof");
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);

    // Clients need none.
    eventually("the topic is known", ELECTION, async || {
        let route = cluster.nameservers[0].rpc().query_route("orders-0").await;
        route.map(drop).map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(cluster.producer("orders-0").send(50, 4).await, 50);
    cluster.finish_with_everything_received("orders-0", &["billing"]).await;
}
