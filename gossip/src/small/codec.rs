//! The form of a request and a response on their stream: u32 length, little-endian, then the message.
//!
//! Runs in the connection's own task, so that decoding, hashing and signature checks cost the network task nothing.
//! A length above what may come is refused before anything is allocated; memory then grows with what really arrives.

use covey_proto::Digest;
use covey_proto::message::{
    PEER_RECORD_BYTES_MAX, PEER_RECORDS_MAX, PeerRecordError, REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, Request, Response,
    SignedPeerRecord,
};
use futures::io::Cursor;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt};
use libp2p::StreamProtocol;
use libp2p::request_response::Codec;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// The protocol's name.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/covey/1/get");

/// The tag of `Response.blob` (field 2, length-delimited): a blob's bytes are written and read without a copy.
const BLOB_TAG: u8 = 0x12;
/// The tag of `Response.announcements` (field 3, length-delimited).
const LIST_TAG: u8 = 0x1a;
/// The tag of `Response.records` (field 5, length-delimited).
const RECORDS_TAG: u8 = 0x2a;
/// Bytes of a response that is neither a blob nor announcements: a record and its form.
const OTHER_BYTES_MAX: usize = PEER_RECORD_BYTES_MAX + 256;
/// Bytes of a response of peer records.
pub(crate) const RECORDS_BYTES_MAX: usize = PEER_RECORDS_MAX * OTHER_BYTES_MAX;
/// Bytes of the longest length in protobuf.
const VARINT_BYTES_MAX: usize = 10;
/// First allocation for a frame; more comes with its bytes.
const FRAME_BYTES_FIRST: usize = 64 * 1024;

/// A request to send.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) request: Request,
    /// The largest response that is of any use.
    pub(crate) answer_bytes_max: usize,
}

/// A request, or a response, as one side sends it and the other receives it.
#[derive(Debug)]
pub(crate) enum RequestFrame {
    /// To send.
    Ask(Ask),
    /// Received.
    Request(Request),
    /// Received, and nothing that this version knows.
    Unknown,
    /// Received, and only a peer that breaks the protocol sends it. Not an error: libp2p keeps those to itself.
    Breach(String),
}

/// What is sent or received in return.
#[derive(Debug)]
pub(crate) enum Answer {
    Nothing,
    /// To send.
    Give(Arc<[u8]>),
    /// Received, with the hash of what came.
    Blob(Vec<u8>, Digest),
    Announcements(Vec<Vec<u8>>),
    Record(SignedPeerRecord),
    Records(Vec<SignedPeerRecord>),
    /// Received: more than was asked for. The asker may have been told a wrong size, so it proves nothing.
    TooLarge,
}

#[derive(Clone, Debug)]
pub(crate) struct Frames {
    /// Set by the request that this stream carries.
    answer_bytes_max: usize,
}

impl Default for Frames {
    fn default() -> Frames {
        Frames { answer_bytes_max: RESPONSE_BYTES_MAX }
    }
}

/// Only a peer that breaks the protocol can cause it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Breach(String);

fn breach(text: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, Breach(text))
}

/// Whether only a peer that breaks the protocol can have caused this error.
pub(crate) fn is_breach(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Breach>())
}

async fn read_length<T: AsyncRead + Unpin + Send>(io: &mut T, bytes_max: usize) -> io::Result<usize> {
    let mut length = [0; 4];
    io.read_exact(&mut length).await?;
    let length = u32::from_le_bytes(length) as usize;
    if length > bytes_max {
        return Err(breach(format!("a frame of {length} bytes; the limit is {bytes_max}")));
    }
    Ok(length)
}

async fn read_frame<T: AsyncRead + Unpin + Send>(io: &mut T, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length.min(FRAME_BYTES_FIRST));
    io.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

async fn write_frame<T: AsyncWrite + Unpin + Send>(io: &mut T, parts: &[&[u8]]) -> io::Result<()> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length).map_err(|_| io::Error::other("a frame above 4 GiB"))?;
    io.write_all(&length.to_le_bytes()).await?;
    for part in parts {
        io.write_all(part).await?;
    }
    io.flush().await
}

fn blob_head(length: usize) -> Vec<u8> {
    let mut head = vec![BLOB_TAG];
    prost::encoding::encode_varint(length as u64, &mut head);
    head
}

/// The blob in a response's canonical bytes, if it is one.
fn take_blob(frame: &mut Vec<u8>) -> Option<Vec<u8>> {
    if frame.first() != Some(&BLOB_TAG) {
        return None;
    }
    let mut rest = frame.get(1..frame.len().min(1 + VARINT_BYTES_MAX))?;
    let length = usize::try_from(prost::encoding::decode_varint(&mut rest).ok()?).ok()?;
    let head = blob_head(length);
    if !frame.starts_with(&head) || frame.len() - head.len() != length {
        return None;
    }
    let mut blob = std::mem::take(frame);
    blob.drain(..head.len());
    Some(blob)
}

/// Bytes that a response of this first tag may have. What it lists is counted by [`Response::from_bytes`].
fn check_size(frame: &[u8]) -> io::Result<()> {
    let bytes_max = match frame.first() {
        Some(&LIST_TAG) => RESPONSE_BYTES_MAX,
        Some(&RECORDS_TAG) => RECORDS_BYTES_MAX,
        _ => OTHER_BYTES_MAX,
    };
    let got = frame.len();
    if got > bytes_max {
        return Err(breach(format!("a response of {got} bytes of its kind; the limit is {bytes_max}")));
    }
    Ok(())
}

fn read_answer(mut frame: Vec<u8>) -> io::Result<Answer> {
    if let Some(blob) = take_blob(&mut frame) {
        let digest = Digest::of(&blob);
        return Ok(Answer::Blob(blob, digest));
    }
    check_size(&frame)?;
    match Response::from_bytes(&frame) {
        Ok(Response::Nothing) => Ok(Answer::Nothing),
        Ok(Response::Announcements(list)) => Ok(Answer::Announcements(list)),
        Ok(Response::Record(record)) => Ok(Answer::Record(record)),
        Ok(Response::Records(list)) => Ok(Answer::Records(list)),
        Ok(Response::Blob(_)) => Err(breach("a blob in another form than the canonical".into())),
        Err(error) => Err(breach(error.to_string())),
    }
}

impl Codec for Frames {
    type Protocol = StreamProtocol;
    type Request = RequestFrame;
    type Response = Answer;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<RequestFrame> {
        let frame = match read_length(io, REQUEST_BYTES_MAX).await {
            Ok(length) => read_frame(io, length).await?,
            Err(error) if is_breach(&error) => return Ok(RequestFrame::Breach(error.to_string())),
            Err(error) => return Err(error),
        };
        Ok(match Request::from_bytes(&frame) {
            Ok(request) => RequestFrame::Request(request),
            Err(PeerRecordError::Decode(_)) => RequestFrame::Unknown,
            Err(error @ PeerRecordError::Signature(_)) => RequestFrame::Breach(error.to_string()),
        })
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Answer> {
        let length = read_length(io, RESPONSE_BYTES_MAX).await?;
        if length > self.answer_bytes_max {
            return Ok(Answer::TooLarge);
        }
        read_answer(read_frame(io, length).await?)
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        asked: RequestFrame,
    ) -> io::Result<()> {
        match asked {
            RequestFrame::Ask(ask) => {
                self.answer_bytes_max = ask.answer_bytes_max;
                write_frame(io, &[&ask.request.to_bytes()]).await
            }
            RequestFrame::Request(_) | RequestFrame::Unknown | RequestFrame::Breach(_) => {
                Err(io::Error::other("only an ask is sent"))
            }
        }
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        answer: Answer,
    ) -> io::Result<()> {
        let response = match answer {
            Answer::Give(bytes) => return write_frame(io, &[&blob_head(bytes.len()), &bytes]).await,
            Answer::Announcements(list) => Response::Announcements(list),
            Answer::Record(record) => Response::Record(record),
            Answer::Records(list) => Response::Records(list),
            Answer::Nothing | Answer::Blob(..) | Answer::TooLarge => Response::Nothing,
        };
        write_frame(io, &[&response.to_bytes()]).await
    }
}

/// Reads `stream` as each side reads the other's, and writes again what it takes for a request and for a response: for
/// fuzzing, which asks whether that is what came.
#[doc(hidden)]
pub fn taken_and_written_again(stream: &[u8]) -> [Option<Vec<u8>>; 2] {
    let mut frames = Frames::default();
    // Bytes that are there are never waited for.
    let asked = frames.read_request(&PROTOCOL, &mut Cursor::new(stream)).now_or_never();
    let asked = match asked {
        Some(Ok(RequestFrame::Request(request))) => Some(request.to_bytes()),
        _ => None,
    };
    let answer = match frames.read_response(&PROTOCOL, &mut Cursor::new(stream)).now_or_never() {
        Some(Ok(Answer::Nothing)) => Some(Response::Nothing),
        Some(Ok(Answer::Blob(bytes, _))) => Some(Response::Blob(bytes)),
        Some(Ok(Answer::Announcements(list))) => Some(Response::Announcements(list)),
        Some(Ok(Answer::Record(record))) => Some(Response::Record(record)),
        _ => None,
    };
    let framed = |message: Vec<u8>| [(message.len() as u32).to_le_bytes().to_vec(), message].concat();
    [asked, answer.map(|answer| answer.to_bytes())].map(|message| message.map(framed))
}

/// Bytes of the response that carries a blob of `size` bytes.
pub(crate) fn blob_answer_bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1 + VARINT_BYTES_MAX).min(RESPONSE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use covey_proto::message::ROUND_ANNOUNCEMENTS_MAX;
    use futures::executor::block_on;
    use proptest::prelude::*;

    fn sent(answer: Answer) -> Vec<u8> {
        let mut io = Cursor::new(Vec::new());
        block_on(Frames::default().write_response(&PROTOCOL, &mut io, answer)).unwrap();
        io.into_inner()
    }

    fn received(bytes: Vec<u8>, answer_bytes_max: usize) -> io::Result<Answer> {
        block_on(Frames { answer_bytes_max }.read_response(&PROTOCOL, &mut Cursor::new(bytes)))
    }

    proptest! {
        #[test]
        fn a_blob_travels_as_the_canonical_response(blob in prop::collection::vec(any::<u8>(), 0..70_000)) {
            let bytes = sent(Answer::Give(blob.clone().into()));
            prop_assert_eq!(&bytes[4..], &Response::Blob(blob.clone()).to_bytes()[..]);
            let Ok(Answer::Blob(back, digest)) = received(bytes, blob_answer_bytes(blob.len() as u64)) else {
                return Err(TestCaseError::fail("no blob"));
            };
            prop_assert_eq!(digest, Digest::of(&blob));
            prop_assert_eq!(back, blob);
        }

        #[test]
        fn no_bytes_panic_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = received(bytes.clone(), RESPONSE_BYTES_MAX);
            let _ = block_on(Frames::default().read_request(&PROTOCOL, &mut Cursor::new(bytes)));
        }
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_by_its_length_alone() {
        let length = (REQUEST_BYTES_MAX as u32 + 1).to_le_bytes();
        let asked = block_on(Frames::default().read_request(&PROTOCOL, &mut Cursor::new(length))).unwrap();
        assert!(matches!(asked, RequestFrame::Breach(_)));
        let error = received((RESPONSE_BYTES_MAX as u32 + 1).to_le_bytes().to_vec(), RESPONSE_BYTES_MAX).unwrap_err();
        assert!(is_breach(&error));
        assert!(matches!(received(sent(Answer::Give(vec![0; 900].into())), 500), Ok(Answer::TooLarge)));
    }

    #[test]
    fn announcements_are_counted_before_they_are_decoded() {
        let list = |count| sent(Answer::Announcements(vec![vec![]; count]));
        let Ok(Answer::Announcements(got)) = received(list(ROUND_ANNOUNCEMENTS_MAX), RESPONSE_BYTES_MAX) else {
            panic!("no list of a whole subnet");
        };
        assert_eq!(got.len(), ROUND_ANNOUNCEMENTS_MAX);
        let error = received(list(ROUND_ANNOUNCEMENTS_MAX + 1), RESPONSE_BYTES_MAX).unwrap_err();
        assert!(is_breach(&error) && error.to_string().contains("256"), "{error}");
        assert!(matches!(received(list(0), RESPONSE_BYTES_MAX), Ok(Answer::Announcements(none)) if none.is_empty()));
        // Two lists, which protobuf would join, and a list behind something small.
        let twice = [&list(200)[4..], &list(200)[4..]].concat();
        let behind = [&sent(Answer::Nothing)[4..], &list(5000)[4..]].concat();
        // Peer records are counted likewise: an empty one is two bytes here.
        let empty = [0x0a, 0].repeat(PEER_RECORDS_MAX + 1);
        let records = [vec![RECORDS_TAG, empty.len() as u8], empty].concat();
        for bytes in [twice, behind, vec![LIST_TAG, 0x85, 0x80], vec![LIST_TAG, 2, 0x0a, 1], records] {
            assert!(is_breach(&read_answer(bytes).unwrap_err()));
        }
    }

    #[test]
    fn a_request_of_another_version_is_unknown_and_no_breach() {
        let mut io = Cursor::new(Vec::new());
        block_on(write_frame(&mut io, &[&[0x7a, 1, 0]])).unwrap();
        io.set_position(0);
        let asked = block_on(Frames::default().read_request(&PROTOCOL, &mut io)).unwrap();
        assert!(matches!(asked, RequestFrame::Unknown));
    }
}
