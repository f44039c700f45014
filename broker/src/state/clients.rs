//! Short stand-ins for the ids of clients that hold deliveries.

use std::collections::HashMap;

use proto::ClientId;

/// Stands for a client as long as it holds something. Local to this process: replicas may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientSlot(u32);

#[derive(Debug)]
struct Client {
    id: ClientId,
    /// How often the slot is in use.
    uses: usize,
}

/// Clients with uses, by slot and by id.
#[derive(Debug, Default)]
pub(super) struct Clients {
    slots: Vec<Option<Client>>,
    by_id: HashMap<ClientId, ClientSlot>,
    free: Vec<ClientSlot>,
}

impl Clients {
    pub(super) fn find(&self, id: &ClientId) -> Option<ClientSlot> {
        self.by_id.get(id).copied()
    }

    pub(super) fn id(&self, slot: ClientSlot) -> &ClientId {
        &self.slots[slot.0 as usize].as_ref().expect("the slot is in use").id
    }

    /// The slot of a client, with one more use.
    pub(super) fn take(&mut self, id: &ClientId) -> ClientSlot {
        let slot = match self.find(id) {
            Some(slot) => slot,
            None => self.add(id.clone()),
        };
        self.take_again(slot);
        slot
    }

    pub(super) fn take_again(&mut self, slot: ClientSlot) {
        self.client_mut(slot).uses += 1;
    }

    /// One use less. The slot of a client without uses goes to another.
    pub(super) fn give_back(&mut self, slot: ClientSlot) {
        let client = self.client_mut(slot);
        client.uses -= 1;
        if client.uses == 0 {
            let gone = self.slots[slot.0 as usize].take().expect("the slot is in use");
            self.by_id.remove(&gone.id);
            self.free.push(slot);
        }
    }

    fn add(&mut self, id: ClientId) -> ClientSlot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            ClientSlot(u32::try_from(self.slots.len() - 1).expect("deliveries are bounded"))
        });
        self.by_id.insert(id.clone(), slot);
        self.slots[slot.0 as usize] = Some(Client { id, uses: 0 });
        slot
    }

    fn client_mut(&mut self, slot: ClientSlot) -> &mut Client {
        self.slots[slot.0 as usize].as_mut().expect("the slot is in use")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_given_to_another_client_after_its_last_use() {
        let mut clients = Clients::default();
        let (a, b): (ClientId, ClientId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let slot = clients.take(&a);
        assert_eq!(clients.take(&a), slot);
        clients.give_back(slot);
        assert_eq!(clients.find(&a), Some(slot));
        clients.give_back(slot);
        assert_eq!(clients.find(&a), None);
        assert_eq!(clients.take(&b), slot);
        assert_eq!(clients.id(slot), &b);
    }
}
