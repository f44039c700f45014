use super::*;
use crate::membership::Node;

const FINE: Standing = Standing { connected: true, lag: Some(Lag { entries: 3, bytes: 4_000 }) };
const DEAD: Standing = Standing { connected: false, lag: Some(Lag { entries: 3, bytes: 4_000 }) };
const SLOW: Standing =
    Standing { connected: true, lag: Some(Lag { entries: 3, bytes: LAG_BYTES_MAX + 1 }) };

/// Led by node 1; all others are fine.
fn scene(voters: &[u64], learners: &[u64]) -> Scene {
    let node = |id: &u64| (*id, Node { raft_addr: format!("r{id}"), client_addr: String::new() });
    let nodes: BTreeMap<u64, Node> = voters.iter().chain(learners).map(node).collect();
    let highest = *nodes.keys().max().unwrap();
    let standing = nodes.keys().filter(|id| **id != 1).map(|id| (NodeId(*id), FINE)).collect();
    let membership = Membership::new(vec![voters.iter().copied().collect()], nodes).unwrap();
    Scene { leader: NodeId(1), membership, highest, standing }
}

impl Scene {
    fn with(mut self, node: u64, standing: Standing) -> Scene {
        self.standing.insert(NodeId(node), standing);
        self
    }
}

fn add(node: u64, addr: &str) -> Change {
    Change::AddLearner { node: NodeId(node), raft_addr: addr.to_owned() }
}

fn promote(node: u64) -> Change {
    Change::Promote { node: NodeId(node) }
}

fn demote(node: u64) -> Change {
    Change::Demote { node: NodeId(node) }
}

fn remove(node: u64) -> Change {
    Change::Remove { node: NodeId(node) }
}

fn replace(old: u64, with: u64) -> Change {
    Change::Replace { old: NodeId(old), with: NodeId(with) }
}

fn voters(ids: &[u64]) -> Step {
    Step::Voters(ids.iter().copied().collect())
}

#[test]
fn a_learner_needs_an_id_and_an_address_that_nobody_has() {
    let scene = scene(&[1, 2, 4], &[]);
    assert_eq!(steps(&scene, &add(5, "r5")), Ok(vec![Step::AddLearner(NodeId(5), "r5".into())]));
    let used = ChangeRefusal::IdUsed { node: NodeId(3), free: NodeId(5) };
    assert_eq!(steps(&scene, &add(3, "r3")), Err(used));
    let taken = ChangeRefusal::AddressTaken { addr: "r2".into(), by: NodeId(2) };
    assert_eq!(steps(&scene, &add(5, "r2")), Err(taken));
    let member = ChangeRefusal::IsMember { node: NodeId(2), at: "r2".into() };
    assert_eq!(steps(&scene, &add(2, "r5")), Err(member));
    assert_eq!(steps(&scene, &add(2, "r2")), Ok(vec![]), "it was added before");
}

#[test]
fn only_a_connected_learner_that_has_caught_up_is_promoted() {
    let three = scene(&[1, 2, 3], &[4]);
    assert_eq!(steps(&three, &promote(4)), Ok(vec![voters(&[1, 2, 3, 4])]));
    let lags = steps(&three.clone().with(4, SLOW), &promote(4)).unwrap_err();
    assert!(matches!(lags, ChangeRefusal::Lags { .. }), "{lags}");
    let away = steps(&three.clone().with(4, DEAD), &promote(4)).unwrap_err();
    assert!(matches!(away, ChangeRefusal::NotConnected { .. }), "{away}");
    assert_eq!(steps(&three, &promote(2)), Ok(vec![]));
    let strange = steps(&three, &promote(9)).unwrap_err();
    assert!(matches!(strange, ChangeRefusal::NotMember { .. }), "{strange}");
}

#[test]
fn a_promotion_that_would_stop_the_group_is_refused() {
    // Four voters need three, and one is dead.
    let one_dead = scene(&[1, 2, 3], &[4]).with(3, DEAD);
    assert!(steps(&one_dead, &promote(4)).is_ok(), "1, 2 and 4 are three");
    let two_dead = scene(&[1, 2, 3, 5], &[6]).with(3, DEAD).with(5, DEAD);
    assert!(steps(&two_dead, &promote(6)).is_ok(), "1, 2 and 6 are three of five");
    let slow_too = two_dead.with(2, SLOW);
    let error = steps(&slow_too, &promote(6)).unwrap_err();
    assert!(matches!(error, ChangeRefusal::NoQuorum { fit: 2, needed: 3, .. }), "{error}");
}

#[test]
fn what_is_removed_must_leave_a_majority() {
    let fine = scene(&[1, 2, 3], &[]);
    assert_eq!(steps(&fine, &remove(3)), Ok(vec![voters(&[1, 2]), Step::Forget(NodeId(3))]));
    assert_eq!(steps(&fine, &demote(3)), Ok(vec![voters(&[1, 2])]));
    let dead = fine.clone().with(3, DEAD);
    assert!(steps(&dead, &remove(3)).is_ok(), "the dead one itself may go");
    let error = steps(&dead, &remove(2)).unwrap_err();
    let expected = ChangeRefusal::NoQuorum { voters: 2, needed: 2, fit: 1, unfit: vec![NodeId(3)] };
    assert_eq!(error, expected);
}

#[test]
fn the_last_voter_stays_and_the_leader_hands_over_first() {
    let one = scene(&[1], &[2]);
    assert_eq!(steps(&one, &remove(1)), Err(ChangeRefusal::LastVoter { node: NodeId(1) }));
    assert_eq!(steps(&one, &remove(2)), Ok(vec![Step::Forget(NodeId(2))]), "a learner");
    let three = scene(&[1, 2, 3], &[4]);
    for change in [remove(1), demote(1), replace(1, 4)] {
        assert_eq!(steps(&three, &change), Ok(vec![Step::HandOver]), "{change}");
    }
}

#[test]
fn a_replacement_swaps_the_votes_in_one_step() {
    let dead = scene(&[1, 2, 3], &[4]).with(2, DEAD);
    let swap = vec![voters(&[1, 3, 4]), Step::Forget(NodeId(2))];
    assert_eq!(steps(&dead, &replace(2, 4)), Ok(swap));
    let lags = steps(&dead.clone().with(4, SLOW), &replace(2, 4)).unwrap_err();
    assert!(matches!(lags, ChangeRefusal::Lags { .. }), "{lags}");
    let itself = steps(&dead, &replace(2, 2)).unwrap_err();
    assert!(matches!(itself, ChangeRefusal::ReplacedByItself { .. }), "{itself}");
}

#[test]
fn a_replacement_that_stopped_half_way_goes_on_where_it_was() {
    let swapped = scene(&[1, 3, 4], &[2]);
    assert_eq!(steps(&swapped, &replace(2, 4)), Ok(vec![Step::Forget(NodeId(2))]));
    let done = scene(&[1, 3, 4], &[]);
    assert_eq!(steps(&done, &replace(2, 4)), Ok(vec![]));
    assert_eq!(steps(&done, &remove(2)), Ok(vec![]), "it is gone already");
    let never = steps(&done, &remove(9)).unwrap_err();
    assert!(matches!(never, ChangeRefusal::NotMember { .. }), "{never}");
}

#[test]
fn an_address_changes_only_to_a_free_one() {
    let three = scene(&[1, 2, 3], &[]);
    let to = |node: u64, addr: &str| Change::UpdateAddress {
        node: NodeId(node),
        raft_addr: addr.to_owned(),
    };
    let step = Step::Readdress(NodeId(2), "new".into());
    assert_eq!(steps(&three, &to(2, "new")), Ok(vec![step]));
    assert_eq!(steps(&three, &to(2, "r2")), Ok(vec![]));
    let taken = steps(&three, &to(2, "r3")).unwrap_err();
    assert!(matches!(taken, ChangeRefusal::AddressTaken { .. }), "{taken}");
    assert!(steps(&three, &to(7, "new")).is_err());
}

#[test]
fn two_voters_are_told_what_they_do_not_survive() {
    assert!(survives(1).contains("stops when it fails"));
    assert!(survives(2).contains("stops when either"));
    assert!(survives(3).contains("goes on when one"));
    assert!(survives(4).contains("goes on when one"));
    assert!(survives(5).contains("goes on when 2"));
}
