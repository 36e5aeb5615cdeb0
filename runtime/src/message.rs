//! What every message can tell about itself without showing its contents.

/// A message type: one enum per actor, owned data, safe to repeat. Implement it with [`message_kinds!`].
///
/// [`message_kinds!`]: crate::message_kinds
pub trait Message: Send + 'static {
    /// The names of its variants. Names may be shown to operators; contents never are, they hold Secrets.
    const KINDS: &'static [&'static str];

    /// The position of this message's variant in [`Message::KINDS`].
    fn kind(&self) -> usize;
}

/// Implements [`Message`](crate::Message) for an enum by listing its variants; forgetting one doesn't compile.
///
/// ```
/// # use k3sd_runtime::{Message, message_kinds};
/// enum DoorMsg { Open { wide: bool }, CloseTick }
/// message_kinds!(DoorMsg { Open, CloseTick });
/// assert_eq!(DoorMsg::KINDS[DoorMsg::Open { wide: true }.kind()], "Open");
/// ```
#[macro_export]
macro_rules! message_kinds {
    ($message:ty { $($variant:ident),+ $(,)? }) => {
        impl $crate::Message for $message {
            const KINDS: &'static [&'static str] = &[$(stringify!($variant)),+];

            fn kind(&self) -> usize {
                #[derive(Clone, Copy)]
                enum Position { $($variant),+ }
                match self { $(Self::$variant { .. } => Position::$variant as usize),+ }
            }
        }
    };
}

/// The message of an actor that understands none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silent {}

impl Message for Silent {
    const KINDS: &'static [&'static str] = &[];

    fn kind(&self) -> usize {
        match *self {}
    }
}
