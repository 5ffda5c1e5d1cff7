// Pick a picture: what is in it, by the bundle's model.
import PhotosUI
import SwiftUI

public struct PictureView: View {
    private let folder: URL
    @State private var picked: PhotosPickerItem?
    @State private var classifier: Task<Classifier, Error>?
    @State private var answer = ""

    /// - Parameter folder: has model/, golden/ and preprocess.json of the bundle.
    public init(folder: URL) { self.folder = folder }

    public var body: some View {
        VStack(spacing: 20) {
            PhotosPicker("Pick a picture", selection: $picked, matching: .images)
            Text(answer).monospacedDigit()
        }
        .task(id: picked) {
            guard let picked else { return }
            answer = "…"
            do {
                let found = try await said(picked)
                try Task.checkCancellation()  // another one was picked meanwhile
                answer = found
            } catch is CancellationError {
            } catch {
                if !Task.isCancelled { answer = error.localizedDescription }
            }
        }
    }

    private func said(_ picture: PhotosPickerItem) async throws -> String {
        guard let file = try await picture.loadTransferable(type: Data.self) else {
            throw SampleError("this picture can't be read")
        }
        let folder = self.folder
        let loading = classifier ?? Task.detached { try Classifier(folder: folder) }
        classifier = loading
        let answers = try await loading.value.likeliest(in: file)
        return answers.map { "\(($0.share * 100).formatted(.number.precision(.fractionLength(1)))) %  \($0.label)" }
            .joined(separator: "\n")
    }
}
