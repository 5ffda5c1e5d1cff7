// Pick a picture: what is in it, by the bundle's model.
import PhotosUI
import SwiftUI

public struct PictureView: View {
    private let folder: URL
    @State private var picked: PhotosPickerItem?
    @State private var classifier: Classifier?
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
            do {
                answer = try await said(picked)
            } catch {
                answer = error.localizedDescription
            }
        }
    }

    private func said(_ picture: PhotosPickerItem) async throws -> String {
        guard let file = try await picture.loadTransferable(type: Data.self) else {
            throw SampleError("this picture can't be read")
        }
        let model: Classifier
        if let classifier {
            model = classifier
        } else {
            let folder = self.folder
            model = try await Task.detached { try Classifier(folder: folder) }.value
            classifier = model
        }
        let answers = try await model.likeliest(in: file)
        return answers.map { "\(($0.share * 100).formatted(.number.precision(.fractionLength(1)))) %  \($0.label)" }
            .joined(separator: "\n")
    }
}
