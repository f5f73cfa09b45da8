//! Whose requests may have their inputs fetched.
//!
//! Unlike requests that only have to be read, these can take minutes: a stranger names the server, and decides how long that
//! takes. So they must keep nobody waiting, and what finds no place is told to come back later. Nobody has more than a part of
//! the places, however many slow servers they name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::lock;
use crate::job::{Code, CustomerId, Refusal};

/// Requests whose inputs are being fetched at once.
const IN_ALL: usize = 32;

/// Of those, of one customer.
const OF_ONE: usize = 8;

/// The places.
#[derive(Debug, Clone, Default)]
pub(super) struct Fetching(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    /// Who has none is not in it.
    of_each: HashMap<CustomerId, usize>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct FetchingPlace {
    customer: CustomerId,
    taken: Arc<Mutex<Taken>>,
}

impl Fetching {
    /// A place for a request of this customer, if there is one.
    ///
    /// # Errors
    /// A refusal that says what to do.
    pub(super) fn take(&self, customer: CustomerId) -> Result<FetchingPlace, Refusal> {
        let mut taken = lock(&self.0);
        let theirs = taken.of_each.get(&customer).copied().unwrap_or(0);
        let full = |what: &str| {
            let text = format!("{what}; try again in a minute, or send the text itself");
            Err(Refusal::new(Code::RateLimited, text))
        };
        if theirs >= OF_ONE {
            return full(&format!("the inputs of {theirs} of your requests are being fetched already"));
        }
        if taken.in_all >= IN_ALL {
            return full("too many inputs are being fetched");
        }
        taken.in_all += 1;
        taken.of_each.insert(customer, theirs + 1);
        Ok(FetchingPlace { customer, taken: Arc::clone(&self.0) })
    }
}

impl Drop for FetchingPlace {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.in_all -= 1;
        let left = taken.of_each.get(&self.customer).map_or(0, |theirs| theirs - 1);
        if left > 0 {
            taken.of_each.insert(self.customer, left);
        } else {
            taken.of_each.remove(&self.customer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn customer(number: u8) -> CustomerId {
        CustomerId([number; 32])
    }

    #[test]
    fn nobody_has_more_than_a_part_of_the_places() {
        let fetching = Fetching::default();
        let mut held: Vec<_> = (0..OF_ONE).map(|_| fetching.take(customer(1)).unwrap()).collect();
        let refusal = fetching.take(customer(1)).unwrap_err();
        assert_eq!(refusal.code, Code::RateLimited);
        assert!(refusal.text.starts_with("the inputs of 8 of your requests"), "{}", refusal.text);
        let _other = fetching.take(customer(2)).unwrap();
        held.pop();
        held.push(fetching.take(customer(1)).unwrap());
        assert!(fetching.take(customer(1)).is_err());
    }

    #[test]
    fn there_are_only_so_many_places_and_all_come_back() {
        let fetching = Fetching::default();
        let crowd = |from: u8| (0..IN_ALL).map(move |number| customer(from + u8::try_from(number).unwrap()));
        let held: Vec<_> = crowd(0).map(|one| fetching.take(one).unwrap()).collect();
        assert!(fetching.take(customer(200)).unwrap_err().text.starts_with("too many inputs"));
        drop(held);
        assert!(lock(&fetching.0).of_each.is_empty());
        let again: Vec<_> = crowd(100).map(|one| fetching.take(one).unwrap()).collect();
        assert_eq!(again.len(), IN_ALL);
    }
}
