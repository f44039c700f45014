//! Administration at an access point reaches the leaders concerned.
#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

mod cast;

use std::{sync::Arc, time::Duration};

use cast::{Noted, group, publish, topic, two_groups};
use gateway::{AdminFanout, AdminSwitch, Shared};
use proto::{
    TransactionId,
    admin::{
        ChangeRequest, ClusterStatusRequest, DescribeTopicRequest, Error, GroupConfig,
        GroupProgressRequest, ListConnectionsRequest, ListGroupsRequest, ListInFlightRequest,
        ListQuotasRequest, ListTimersRequest, ListTopicsRequest, ListTransactionsRequest,
        LiveSetting, PutGroupRequest, PutTopicRequest, QueryMessagesRequest, Quota,
        RedriveDeadLettersRequest, ResetOffsetsRequest, ResolveTransactionRequest, RetireTopic,
        SwitchGroup, TopicConfig, TrackMessageRequest, admin_server::Admin, change_request::Change,
        error::Fate,
    },
};
use tonic::Request;

fn put(names: &[&str]) -> PutTopicRequest {
    PutTopicRequest {
        config: Some(TopicConfig {
            topic: "orders".into(),
            queues: 4,
            permission: 4,
            accepts: vec![1],
        }),
        broker_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_topic_is_put_everywhere_under_one_version() {
    let (directory, a, b) = two_groups().await;
    let admin = AdminFanout::new(directory);
    let answer = admin.put_topic(Request::new(put(&[]))).await.expect("an answer").into_inner();
    assert_eq!(answer.error, None);
    let placed: Vec<_> =
        answer.placement.iter().map(|p| (p.broker_name.as_str(), p.queues)).collect();
    assert_eq!(placed, [("broker-a", 4), ("broker-b", 4)]);
    for noted in [a, b] {
        let [put] = &noted.notes().puts[..] else { panic!("each leader is asked once") };
        assert_eq!((put.version, &put.placement), (answer.version, &answer.placement));
        assert!(put.version > 0);
    }
}

#[tokio::test]
async fn a_topic_is_put_on_the_named_groups_only() {
    let (directory, a, b) = two_groups().await;
    let admin = AdminFanout::new(directory);
    let answer = admin.put_topic(Request::new(put(&["broker-b"]))).await.expect("an answer");
    assert_eq!(answer.get_ref().error, None);
    assert_eq!(a.notes().puts.len(), 0);
    assert_eq!(b.notes().puts.len(), 1);
    let answer = admin.put_topic(Request::new(put(&["broker-x"]))).await.expect("an answer");
    let error = answer.into_inner().error.expect("there is no broker-x");
    assert_eq!(error.fate(), Fate::Rejected);
    assert!(error.message.contains("broker-x") && error.message.contains("broker-a"));
}

#[tokio::test]
async fn lists_are_merged_and_a_topic_is_found_where_it_is() {
    let (directory, _a, _b) = two_groups().await;
    let admin = AdminFanout::new(directory);
    let groups = admin.list_groups(Request::new(ListGroupsRequest {})).await.expect("an answer");
    let names: Vec<_> = groups.get_ref().groups.iter().map(|g| g.group.as_str()).collect();
    assert_eq!(names, ["billing", "of-broker-a", "of-broker-b"]);
    let request = DescribeTopicRequest { topic: "orders".into() };
    let topic = admin.describe_topic(Request::new(request)).await.expect("an answer").into_inner();
    assert_eq!((topic.error, topic.queues.len()), (None, 1));
}

#[tokio::test]
async fn a_change_must_be_made_everywhere_or_wherever_its_object_is() {
    let (directory, _a, _b) = two_groups().await;
    let admin = AdminFanout::new(directory);
    let quota = Change::PutQuota(Quota::default());
    let cases = [
        (Change::DeleteTopic("orders".into()), None),
        (Change::DeleteGroup("audit".into()), None),
        (quota, Some("broker-b: broker-b")),
    ];
    for (change, expected) in cases {
        let request = ChangeRequest { change: Some(change) };
        let answer = admin.change(Request::new(request)).await.expect("an answer").into_inner();
        assert_eq!(answer.error.map(|error| error.message).as_deref(), expected);
    }
    for (name, absent) in [("again", false), ("gone", true)] {
        let request = ChangeRequest { change: Some(Change::DeleteTopic(name.into())) };
        let answer = admin.change(Request::new(request)).await.expect("an answer").into_inner();
        assert_eq!((answer.error, answer.absent), (None, absent), "{name}");
    }
    let listed = admin.list_quotas(Request::new(ListQuotasRequest {})).await.expect("an answer");
    assert_eq!(listed.into_inner().quotas.len(), 1);
}

#[tokio::test]
async fn transactions_are_listed_everywhere_and_resolved_where_they_are() {
    let (directory, _a, _b) = two_groups().await;
    let admin = AdminFanout::new(directory);
    let id = |broker: &str, number| {
        TransactionId { broker: broker.parse().expect("valid"), number }.to_string()
    };
    let listed = |request| admin.list_transactions(Request::new(request));
    let all = listed(ListTransactionsRequest::default()).await.expect("an answer").into_inner();
    let names: Vec<_> = all.transactions.iter().map(|t| t.message_id.as_str()).collect();
    assert_eq!((all.error, names), (None, vec!["broker-a", "broker-b"]));
    let further = ListTransactionsRequest { after: id("broker-b", 7), ..Default::default() };
    let further = listed(further).await.expect("an answer").into_inner();
    assert_eq!(further.transactions.len(), 1);
    assert_eq!(further.transactions[0].message_id, "broker-b");

    for (transaction_id, said) in
        [(id("broker-b", 7), "asked broker-b"), (String::new(), "the transaction id is empty")]
    {
        let request = ResolveTransactionRequest { transaction_id, commit: true };
        let answer = admin.resolve_transaction(Request::new(request)).await.expect("an answer");
        assert_eq!(answer.into_inner().error.expect("refused").message, said);
    }
}

#[tokio::test]
async fn a_broker_tells_of_all_groups_and_of_its_own_by_itself() {
    let (directory, a, _b) = two_groups().await;
    let admin = AdminSwitch::new(a, Arc::clone(&directory));
    let status = admin.cluster_status(Request::new(ClusterStatusRequest {})).await;
    let groups = status.expect("an answer").into_inner().groups;
    let told: Vec<_> = groups.iter().map(|g| (g.broker_name.as_str(), g.flush.as_str())).collect();
    assert_eq!(told, [("broker-a", "sync"), ("broker-b", "")]);
}

#[tokio::test]
async fn a_group_without_a_leader_is_not_done() {
    let directory = Arc::new(Shared::default());
    publish(&directory, vec![group("broker-a", 1, None, &[])], vec![]);
    let admin = AdminFanout::new(directory);
    let mut request = Request::new(put(&[]));
    request.set_timeout(Duration::from_millis(400));
    let answer = admin.put_topic(request).await.expect("an answer").into_inner();
    assert_eq!(answer.error.expect("nobody leads").fate(), Fate::NotDone);
}

/// Both groups, the second one without a leader; the topic lives in both.
async fn one_missing() -> (AdminFanout<Arc<Shared>>, Noted) {
    let (directory, a, _b) = two_groups().await;
    let address = directory.view().groups.values().next().and_then(|a| a.leader.clone());
    let led = group("broker-a", 1, address.as_deref(), &[address.as_deref().expect("it leads")]);
    let both = topic("orders", &["broker-a", "broker-b"]);
    a.scripted.scene().topics = vec![both.clone(), topic("bills", &["broker-a"])];
    publish(&directory, vec![led, group("broker-b", 1, None, &[])], vec![both]);
    (AdminFanout::new(directory), a)
}

fn within<T>(time: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(time);
    request
}

/// For what ends with the first group that does not answer.
fn soon<T>(message: T) -> Request<T> {
    within(Duration::from_millis(500), message)
}

/// For what goes on without it.
fn later<T>(message: T) -> Request<T> {
    within(Duration::from_secs(8), message)
}

/// It says which group is missing, and that nothing was done there.
fn names_the_missing(what: &str, error: Option<Error>) {
    let error = error.unwrap_or_else(|| panic!("{what}: a part passes for the whole"));
    assert_eq!(error.fate(), Fate::NotDone, "{what}: {error:?}");
    assert!(error.message.contains("broker-b"), "{what}: {error:?}");
}

#[tokio::test]
async fn no_answer_is_silently_partial() {
    let (admin, _a) = one_missing().await;
    macro_rules! missing {
        ($($rpc:ident($request:expr),)*) => {
            $(
                let answer = admin.$rpc(soon($request)).await.expect("an answer").into_inner();
                names_the_missing(stringify!($rpc), answer.error);
            )*
        };
    }
    let topic = || "orders".to_owned();
    missing! {
        list_topics(ListTopicsRequest {}),
        describe_topic(DescribeTopicRequest { topic: topic() }),
        list_groups(ListGroupsRequest {}),
        group_progress(GroupProgressRequest::default()),
        redrive_dead_letters(RedriveDeadLettersRequest::default()),
        list_connections(ListConnectionsRequest {}),
        list_quotas(ListQuotasRequest {}),
        list_transactions(ListTransactionsRequest::default()),
        list_timers(ListTimersRequest { topic: topic(), ..Default::default() }),
        reset_offsets(ResetOffsetsRequest { topic: topic(), ..Default::default() }),
        query_messages(QueryMessagesRequest { topic: topic(), ..Default::default() }),
    }
    let at_b = TrackMessageRequest {
        topic: topic(),
        broker_name: "broker-b".into(),
        ..Default::default()
    };
    names_the_missing("track", admin.track_message(soon(at_b)).await.unwrap().into_inner().error);
    let at_a = QueryMessagesRequest {
        topic: topic(),
        broker_name: "broker-a".into(),
        ..Default::default()
    };
    let asked = admin.query_messages(later(at_a)).await.expect("an answer").into_inner();
    assert_eq!(asked.error, None, "what concerns the other group alone is answered");
}

#[tokio::test]
async fn a_topic_is_changed_wherever_it_is_or_nowhere() {
    let (admin, a) = one_missing().await;
    let answer = admin.put_topic(soon(put(&[]))).await.expect("an answer").into_inner();
    names_the_missing("put", answer.error);
    assert!(a.notes().puts.is_empty(), "nothing was begun");
    let mut elsewhere = put(&["broker-a"]);
    elsewhere.config.as_mut().expect("set").topic = "bills".into();
    let answer = admin.put_topic(later(elsewhere)).await.expect("an answer").into_inner();
    assert_eq!(answer.error, None, "the missing group has nothing to do with it");
    assert_eq!(a.notes().puts.len(), 1);
}

#[tokio::test]
async fn a_setting_has_one_version_everywhere() {
    let (directory, a, b) = two_groups().await;
    let known = 1 << 60;
    b.notes().groups =
        vec![GroupConfig { group: "audit".into(), version: known, ..Default::default() }];
    let admin = AdminFanout::new(directory);
    let config = GroupConfig { group: "audit".into(), fifo: true, ..Default::default() };
    let put = PutGroupRequest { config: Some(config) };
    let answer = admin.put_group(Request::new(put)).await.expect("an answer").into_inner();
    assert_eq!(answer.error, None);
    let versions = [&a, &b].map(|noted| noted.notes().group_puts[0].version);
    assert_eq!(versions, [known + 1; 2], "above the highest one known");

    let switch = SwitchGroup { group: "audit".into(), enabled: false, version: 0 };
    let request = ChangeRequest { change: Some(Change::SwitchGroup(switch)) };
    admin.change(Request::new(request)).await.expect("an answer");
    let version = |noted: &Noted| match &noted.notes().changes[0] {
        Change::SwitchGroup(switch) => switch.version,
        other => panic!("{other:?}"),
    };
    assert!(version(&a) > 0 && version(&a) == version(&b));
}

#[tokio::test]
async fn a_group_that_is_new_to_a_topic_gets_the_settings_of_the_others_first() {
    let (directory, a, b) = two_groups().await;
    let ordered = GroupConfig {
        group: "audit".into(),
        fifo: true,
        version: 5,
        disabled: true,
        switch_version: 7,
        ..Default::default()
    };
    a.notes().groups = vec![ordered.clone()];
    a.scripted.scene().topics = vec![topic("orders", &["broker-a"])];
    let admin = AdminFanout::new(directory);
    let answer = admin.put_topic(Request::new(put(&["broker-b"]))).await.expect("an answer");
    assert_eq!(answer.get_ref().error, None);
    assert_eq!(b.notes().group_puts, [ordered]);
    let switch = SwitchGroup { group: "audit".into(), enabled: false, version: 7 };
    assert_eq!(b.notes().changes, [Change::SwitchGroup(switch)]);
    assert!(a.notes().group_puts.is_empty() && a.notes().changes.is_empty());
    assert_eq!((a.notes().puts.len(), b.notes().puts.len()), (1, 1), "both know the placement");
}

#[tokio::test]
async fn a_topic_leaves_a_group_before_the_others_are_told() {
    let (directory, a, b) = two_groups().await;
    let mut both = topic("orders", &["broker-a", "broker-b"]);
    both.placement[1].1 = 0;
    a.scripted.scene().topics = vec![both.clone()];
    b.scripted.scene().topics = vec![both];
    let admin = AdminFanout::new(directory);
    let retire = |broker: &str| {
        let retire =
            RetireTopic { topic: "orders".into(), broker_name: broker.into(), force: false };
        ChangeRequest { change: Some(Change::RetireTopic(retire)) }
    };
    let open = admin.change(Request::new(retire("broker-a"))).await.expect("an answer");
    assert_eq!(open.into_inner().error.expect("nobody would be left").fate(), Fate::Rejected);
    let done = admin.change(Request::new(retire("broker-b"))).await.expect("an answer");
    assert_eq!(done.into_inner().error, None);
    assert_eq!(b.notes().changes.len(), 1);
    let [put] = &a.notes().puts[..] else { panic!("the other one is told once") };
    let placed: Vec<_> = put.placement.iter().map(|p| (p.broker_name.as_str(), p.queues)).collect();
    assert_eq!(placed, [("broker-a", 2)]);
}

#[tokio::test]
async fn a_brokers_setting_is_changed_where_it_is_asked_for_under_one_version() {
    let (directory, a, b) = two_groups().await;
    let admin = AdminFanout::new(directory);
    let put = async |broker_name: &str| {
        let (key, value) = ("max_delay".to_owned(), Some("1h".to_owned()));
        let setting = LiveSetting { key, value, broker_name: broker_name.into(), version: 0 };
        let change = Some(Change::PutLiveSetting(setting));
        let answer = admin.change(Request::new(ChangeRequest { change })).await;
        answer.expect("an answer").into_inner().error
    };
    assert_eq!(put("broker-b").await, None);
    assert_eq!((a.notes().changes.len(), b.notes().changes.len()), (0, 1));
    // This leader refuses every change, which stops no other one.
    let refused = put("").await.expect("a refusal");
    assert!(refused.message.contains("broker-a"), "{refused:?}");
    assert_eq!((a.notes().changes.len(), b.notes().changes.len()), (1, 2));
    let version = |change: &Change| match change {
        Change::PutLiveSetting(setting) => setting.version,
        other => panic!("{other:?}"),
    };
    assert_eq!(version(&a.notes().changes[0]), version(&b.notes().changes[1]));
    assert!(put("broker-x").await.expect("a refusal").message.contains("broker-x"));
}

#[tokio::test]
async fn deliveries_of_all_groups_are_one_list() {
    let (directory, ..) = two_groups().await;
    let admin = AdminFanout::new(directory);
    let request = ListInFlightRequest { group: "billing".into(), ..Default::default() };
    let answer = admin.list_in_flight(Request::new(request)).await.expect("an answer").into_inner();
    let brokers: Vec<_> = answer.messages.iter().map(|one| one.broker_name.as_str()).collect();
    assert_eq!((brokers, answer.error), (vec!["broker-a", "broker-b"], None));
}
