//! Files the kernel reads by itself for an inode, counted by open handles.
//!
//! The kernel wants one registration per inode: a second open with another one fails with `EIO` while the first lasts.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::server::NodeId;
use crate::sync::lock;

/// Registrations of type `T`, each dropped with its last handle.
#[derive(Debug)]
pub(crate) struct BackingTable<T> {
    open: Mutex<HashMap<NodeId, (T, u64)>>,
}

impl<T> Default for BackingTable<T> {
    fn default() -> Self {
        Self { open: Mutex::default() }
    }
}

impl<T> BackingTable<T> {
    /// Opens a handle: with the registration there is, or with one that `register` makes. `answer` is called while
    /// nobody can close the last handle; it is not called when `register` fails.
    pub(crate) fn open<E>(
        &self,
        node: NodeId,
        register: impl FnOnce() -> Result<T, E>,
        answer: impl FnOnce(&T),
    ) -> Result<(), E> {
        let mut open = lock(&self.open);
        if let Some((registration, handles)) = open.get_mut(&node) {
            *handles += 1;
            answer(registration);
            return Ok(());
        }
        let registration = register()?;
        answer(&registration);
        open.insert(node, (registration, 1));
        Ok(())
    }

    /// Closes a handle.
    pub(crate) fn close(&self, node: NodeId) {
        let mut open = lock(&self.open);
        if let Some((_, handles)) = open.get_mut(&node) {
            *handles -= 1;
            if *handles == 0 {
                open.remove(&node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn handles_of_one_node_share_a_registration_until_the_last_closes() {
        let table = BackingTable::default();
        let made = Rc::new(());
        let open = |node| {
            let mut seen = false;
            let register = || Ok::<_, ()>(Rc::clone(&made));
            table.open(NodeId(node), register, |_| seen = true).expect("register");
            assert!(seen);
        };
        open(7);
        open(7);
        assert_eq!(Rc::strong_count(&made), 2);
        open(8);
        assert_eq!(Rc::strong_count(&made), 3);
        table.close(NodeId(7));
        assert_eq!(Rc::strong_count(&made), 3);
        table.close(NodeId(7));
        table.close(NodeId(8));
        assert_eq!(Rc::strong_count(&made), 1);
        assert_eq!(
            table.open(NodeId(9), || Err("refused"), |_| unreachable!()),
            Err("refused")
        );
        table.close(NodeId(9));
    }
}
