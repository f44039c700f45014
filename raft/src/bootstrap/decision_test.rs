use super::*;

const GROUP: GroupId = GroupId(7);
const OTHER: GroupId = GroupId(8);

fn peers() -> BTreeMap<NodeId, String> {
    (1..=3).map(|id| (NodeId(id), format!("host{id}:1"))).collect()
}

fn me(node: u64, holding: Holding) -> Me {
    Me { node: NodeId(node), broker_name: "broker-a".into(), peers: peers(), holding }
}

fn answer(node: u64, holding: Holding) -> Answer {
    let formed = matches!(holding, Holding::Formed(_));
    Answer {
        node: NodeId(node),
        broker_name: "broker-a".into(),
        peers: peers(),
        holding,
        members: if formed { peers().into_keys().collect() } else { BTreeSet::new() },
    }
}

fn heard(answers: impl IntoIterator<Item = Answer>) -> BTreeMap<NodeId, Heard> {
    answers.into_iter().map(|answer| (answer.node, Heard::Answer(answer))).collect()
}

fn ids(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

#[test]
fn a_node_waits_until_every_peer_was_heard() {
    let nobody = BTreeMap::new();
    assert_eq!(decide(&me(1, Holding::Nothing), &nobody), Step::Wait(ids(&[2, 3])));
    let one = heard([answer(3, Holding::Nothing)]);
    assert_eq!(decide(&me(1, Holding::Nothing), &one), Step::Wait(ids(&[2])));
}

#[test]
fn the_lowest_node_founds_the_group_once_all_hold_nothing() {
    let all = heard([answer(2, Holding::Nothing), answer(3, Holding::Nothing)]);
    assert_eq!(decide(&me(1, Holding::Nothing), &all), Step::Found);
}

#[test]
fn the_others_wait_for_the_lowest() {
    let all = heard([answer(1, Holding::Nothing), answer(3, Holding::Nothing)]);
    assert_eq!(decide(&me(2, Holding::Nothing), &all), Step::Wait(ids(&[1])));
    let founding = heard([answer(1, Holding::Adopted(GROUP)), answer(3, Holding::Nothing)]);
    assert_eq!(decide(&me(2, Holding::Nothing), &founding), Step::Wait(ids(&[1])));
}

#[test]
fn the_founder_invites_until_everybody_holds_the_identity() {
    let founder = me(1, Holding::Adopted(GROUP));
    let one = heard([answer(2, Holding::Adopted(GROUP)), answer(3, Holding::Nothing)]);
    assert_eq!(decide(&founder, &one), Step::Invite(ids(&[3])));
    let both = heard([answer(2, Holding::Adopted(GROUP)), answer(3, Holding::Adopted(GROUP))]);
    assert_eq!(decide(&founder, &both), Step::Initialise);
}

#[test]
fn a_founder_that_restarts_does_not_go_on_before_it_heard_all() {
    let founder = me(1, Holding::Adopted(GROUP));
    let one = heard([answer(2, Holding::Adopted(GROUP))]);
    assert_eq!(decide(&founder, &one), Step::Wait(ids(&[3])));
}

#[test]
fn a_founder_whose_group_went_on_without_it_takes_part() {
    let founder = me(1, Holding::Adopted(GROUP));
    let formed = heard([answer(2, Holding::Formed(GROUP))]);
    assert_eq!(decide(&founder, &formed), Step::Run);
}

#[test]
fn a_group_of_one_needs_nobody() {
    let mut alone = me(1, Holding::Nothing);
    alone.peers = BTreeMap::from([(NodeId(1), "host1:1".into())]);
    assert_eq!(decide(&alone, &BTreeMap::new()), Step::Found);
    alone.holding = Holding::Adopted(GROUP);
    assert_eq!(decide(&alone, &BTreeMap::new()), Step::Initialise);
}

#[test]
fn an_invited_node_and_a_node_with_data_take_part() {
    assert_eq!(decide(&me(2, Holding::Adopted(GROUP)), &BTreeMap::new()), Step::Run);
    assert_eq!(decide(&me(1, Holding::Formed(GROUP)), &BTreeMap::new()), Step::Run);
}

#[test]
fn differing_peer_lists_are_refused() {
    let mut other = answer(3, Holding::Nothing);
    other.peers.insert(NodeId(3), "elsewhere:1".into());
    let step = decide(&me(1, Holding::Nothing), &heard([other]));
    let Step::Refuse(Refusal::PeerListsDiffer { peer, ours, theirs }) = step else {
        panic!("{step:?}");
    };
    assert_eq!(peer, NodeId(3));
    assert_eq!(ours, "1=host1:1,2=host2:1,3=host3:1");
    assert_eq!(theirs, "1=host1:1,2=host2:1,3=elsewhere:1");
}

#[test]
fn a_node_with_data_does_not_mind_another_peer_list() {
    let mut other = answer(3, Holding::Formed(GROUP));
    other.peers.insert(NodeId(4), "host4:1".into());
    assert_eq!(decide(&me(1, Holding::Formed(GROUP)), &heard([other])), Step::Run);
}

#[test]
fn a_wiped_node_is_refused_by_the_first_peer_that_knows_it() {
    for node in 1..=2 {
        let survivor = heard([answer(3, Holding::Formed(GROUP))]);
        let refusal = Refusal::Wiped { node: NodeId(node), peer: NodeId(3), group: GROUP };
        assert_eq!(decide(&me(node, Holding::Nothing), &survivor), Step::Refuse(refusal));
    }
}

#[test]
fn a_wiped_founder_is_refused_by_those_it_had_invited() {
    let invited = heard([answer(2, Holding::Adopted(GROUP))]);
    let step = decide(&me(1, Holding::Nothing), &invited);
    assert!(matches!(step, Step::Refuse(Refusal::Wiped { .. })), "{step:?}");
}

#[test]
fn a_wiped_majority_does_not_form_again_beside_a_survivor() {
    let all = heard([answer(2, Holding::Nothing), answer(3, Holding::Formed(GROUP))]);
    let step = decide(&me(1, Holding::Nothing), &all);
    assert!(matches!(step, Step::Refuse(Refusal::Wiped { .. })), "{step:?}");
}

#[test]
fn a_second_group_under_the_same_name_is_refused() {
    let mut stranger = answer(2, Holding::Formed(GROUP));
    stranger.members = BTreeSet::from([NodeId(2), NodeId(5), NodeId(6)]);
    let step = decide(&me(1, Holding::Nothing), &heard([stranger]));
    let refusal =
        Refusal::SecondGroup { peer: NodeId(2), group: GROUP, broker_name: "broker-a".into() };
    assert_eq!(step, Step::Refuse(refusal));
}

#[test]
fn another_groups_directory_is_refused_when_most_peers_differ() {
    let astray = me(1, Holding::Formed(OTHER));
    let one = heard([answer(2, Holding::Formed(GROUP))]);
    assert_eq!(decide(&astray, &one), Step::Run);
    let two = heard([answer(2, Holding::Formed(GROUP)), answer(3, Holding::Formed(GROUP))]);
    let refusal = Refusal::OtherGroup { ours: OTHER, theirs: GROUP };
    assert_eq!(decide(&astray, &two), Step::Refuse(refusal));
}

#[test]
fn one_stray_peer_does_not_stop_a_member() {
    let member = me(1, Holding::Formed(GROUP));
    let stray = heard([answer(2, Holding::Formed(GROUP)), answer(3, Holding::Formed(OTHER))]);
    assert_eq!(decide(&member, &stray), Step::Run);
    let stranger = BTreeMap::from([(NodeId(3), Heard::WrongSecret)]);
    assert_eq!(decide(&member, &stranger), Step::Run);
}

#[test]
fn an_invited_node_refuses_a_group_that_is_not_the_one_it_was_invited_to() {
    let step = decide(&me(2, Holding::Adopted(GROUP)), &heard([answer(3, Holding::Formed(OTHER))]));
    let refusal = Refusal::OtherGroup { ours: GROUP, theirs: OTHER };
    assert_eq!(step, Step::Refuse(refusal));
}

#[test]
fn a_wrong_secret_is_refused() {
    let strangers = BTreeMap::from([(NodeId(2), Heard::WrongSecret)]);
    let refusal = Refusal::WrongSecret { peer: NodeId(2), addr: "host2:1".into() };
    assert_eq!(decide(&me(1, Holding::Nothing), &strangers), Step::Refuse(refusal));
    let all = BTreeMap::from([(NodeId(2), Heard::WrongSecret), (NodeId(3), Heard::WrongSecret)]);
    let step = decide(&me(1, Holding::Formed(GROUP)), &all);
    assert!(matches!(step, Step::Refuse(Refusal::WrongSecret { .. })), "{step:?}");
}

#[test]
fn an_address_that_answers_as_somebody_else_is_refused() {
    let mut other = answer(3, Holding::Nothing);
    other.node = NodeId(2);
    let wrong = BTreeMap::from([(NodeId(3), Heard::Answer(other))]);
    let step = decide(&me(1, Holding::Nothing), &wrong);
    assert!(matches!(step, Step::Refuse(Refusal::WrongAddress { .. })), "{step:?}");

    let mut other = answer(3, Holding::Nothing);
    other.broker_name = "broker-b".into();
    let step = decide(&me(1, Holding::Nothing), &heard([other]));
    assert!(matches!(step, Step::Refuse(Refusal::WrongBroker { .. })), "{step:?}");
}
